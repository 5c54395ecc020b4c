"""The program under test (environment variable HADAL, otherwise the release build) and the tiny models it is tested with."""

import importlib
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
sys.path.insert(0, str(GOLDEN))
from cases import CASES  # noqa: E402

TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
LEVELS = ("scalar", "avx2", "avx512", "vnni", "amx")


@dataclass
class Golden:
    """One folder that make.py wrote."""

    name: str
    folder: pathlib.Path
    tensors: dict

    @property
    def model(self):
        gguf = self.folder / "model.gguf"
        return gguf if gguf.exists() else self.folder / "model"

    @property
    def ids(self):
        return self.tensors["ids"].tolist()

    @property
    def greedy(self):
        return self.tensors["greedy"].tolist()

    @property
    def tolerance(self):
        return float(self.tensors["tolerance"][0])


def read_golden(folder):
    return Golden(folder.name, folder, load_file(folder / "golden.safetensors"))


def copy_of(folder, model, template=None, **config):
    """The model in a folder of its own, with a chat template and other values in its config.json."""
    shutil.copytree(model, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    if template is not None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    return folder


def wait_until(what):
    """False: ten seconds have passed."""
    for _ in range(200):
        if what():
            return True
        time.sleep(0.05)
    return False


class Hadal:
    def __init__(self, program):
        self.program = program

    def run(self, *arguments, isa=None, expect=0):
        environment = dict(os.environ) | ({"HADAL_ISA": isa} if isa else {})
        done = subprocess.run([self.program, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == expect, f"{' '.join(map(str, arguments))[:200]}\n{done.stderr}"
        return done

    def fails(self, code, message, *arguments, **options):
        stderr = self.run(*arguments, expect=code, **options).stderr
        assert stderr.startswith("hadal: error: ") and message in stderr, stderr

    def logits(self, model, ids, folder, *options, isa=None):
        out = folder / "logits.npy"
        self.run("logits", model, "--ids", ",".join(map(str, ids)), "--out", out, *options, isa=isa)
        return np.load(out)


@pytest.fixture(scope="session")
def hadal():
    program = pathlib.Path(os.environ.get("HADAL", ROOT / "build" / "release" / "hadal"))
    if not program.exists():
        pytest.fail(f"no program to test: {program} (script/build makes it; the environment variable HADAL names another)")
    return Hadal(program)


@pytest.fixture(scope="module")
def llama():
    return read_golden(GOLDEN / "llama")


@pytest.fixture
def chatty(llama, tmp_path):
    return copy_of(tmp_path / "chatty", llama.model, TEMPLATE, max_position_embeddings=65536)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of models and a terminal that are nobody's."""
    monkeypatch.setenv("HADAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return tmp_path / "cache"


def machine_has(level):
    flags = pathlib.Path("/proc/cpuinfo").read_text().split("flags", 1)[-1].split("\n", 1)[0].split()
    return {"scalar": True, "avx2": "avx2" in flags and "fma" in flags, "avx512": "avx512bw" in flags,
            "vnni": "avx512_vnni" in flags, "amx": "amx_int8" in flags}[level]


@pytest.fixture(params=LEVELS)
def isa(request):
    if not machine_has(request.param):
        pytest.skip(f"this machine has no {request.param}")
    return request.param


@pytest.fixture(params=[case.name for case in CASES if case.small])
def golden(request):
    return read_golden(GOLDEN / request.param)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Every case made anew, the uncommitted ones too."""
    for package in ("torch", "transformers", "gguf"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("golden")
    done = subprocess.run([sys.executable, GOLDEN / "make.py", "--out", folder], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder


def pytest_addoption(parser):
    parser.addoption("--install", action="store_true", help="also `pip install .` into an environment of its own: some minutes")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--install"):
        chosen = [item for item in items if item.get_closest_marker("install") is None]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


def pytest_configure(config):
    config.addinivalue_line("markers", "install: takes minutes, run with --install")


@pytest.fixture(scope="session")
def package():
    """The Python package beside the program."""
    folder = pathlib.Path(os.environ.get("HADAL_PACKAGE", ROOT / "build" / "release" / "python"))
    if not list(folder.glob("hadal/_hadal*.so")):
        if importlib.util.find_spec("nanobind") is None:
            pytest.skip("the Python package is built where nanobind is (requirements.txt)")
        pytest.fail(f"no Python package to test in {folder} (script/build release hadal_python makes it)")
    sys.path.insert(0, str(folder))
    return importlib.import_module("hadal")
