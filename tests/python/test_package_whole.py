"""The Python package as a whole: how programs with it end and fork, its documentation, its types, its installation."""

import doctest
import importlib
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
from conftest import ROOT
from test_package import model, path  # noqa: F401


def run_python(package, code, *arguments):
    folder = os.path.dirname(os.path.dirname(package.__file__))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": folder},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr
    return done.stdout


def test_a_program_may_end_in_the_middle(package, path):
    """Nothing is joined too late, nothing crashes, nothing is said: with a reply running and the model in a global."""
    out = run_python(
        package,
        """
        import sys, hadal
        model = hadal.load(sys.argv[1])
        stream = model.stream([1, 2], max_tokens=4000, temperature=0, logit_bias={65: 100, 299: -100})
        print(next(stream)[0], "torch" in sys.modules)
    """,
        path,
    )
    assert out == "A False\n"


def test_a_forked_child_is_told(package, path):
    out = run_python(
        package,
        """
        import os, sys, hadal
        model = hadal.load(sys.argv[1])
        model.generate([1], max_tokens=2)
        child = os.fork()
        if child == 0:
            try:
                model.generate([1], max_tokens=2)
            except hadal.Error as error:
                print(error, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
    """,
        path,
    )
    assert "before the process forked" in out


def test_the_number_of_threads(package, path):
    out = run_python(
        package,
        """
        import sys, hadal, hadal._hadal
        one = hadal.load(sys.argv[1], threads=1)
        first = one.generate([1, 2], max_tokens=20, temperature=0).ids
        del one
        two = hadal.load(sys.argv[1], threads=2)
        print(hadal._hadal.threads(), two.generate([1, 2], max_tokens=20, temperature=0).ids == first)
    """,
        path,
    )
    assert out == "2 True\n"


@pytest.mark.parametrize("name", ["hadal", "hadal.config", "hadal.tokenizer", "hadal.model", "hadal.deepseek"])
def test_the_documentation_is_true(package, model, path, name):
    module = importlib.import_module(name)
    tests = doctest.DocTestFinder(exclude_empty=True).find(module, globs={"model": model, "path": str(path), "hadal": package})
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in tests:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
    assert runner.tries > 0
    model.config.attention_window = None


def test_types_are_told(package):
    assert (ROOT / "python" / "hadal" / "py.typed").exists()
    stub = (ROOT / "python" / "hadal" / "_hadal.pyi").read_text().splitlines()
    names = {line.split("(")[0].split()[1] for line in stub if line.startswith(("class ", "def "))}
    from hadal import _hadal

    assert {name.rstrip(":") for name in names} == {name for name in dir(_hadal) if not name.startswith("_")} - {"version"}


@pytest.mark.install
def test_pip_install_into_a_clean_environment(path, tmp_path):
    """`pip install .` as a stranger does it, then the article's snippet as printed."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    # The release build's compiler options, so that ccache has most objects already.
    same = {"CMAKE_ARGS": "-DHADAL_WERROR=ON", "CCACHE_DEPEND": "1"} | ({"CMAKE_CXX_COMPILER_LAUNCHER": "ccache"} if shutil.which("ccache") else {})
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", ROOT], capture_output=True, text=True, timeout=3600, env=os.environ | same
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (tmp_path / "deepseek").mkdir()
    (tmp_path / "deepseek" / "v1").symlink_to(path)
    code = """
from hadal import DeepSeekModel
model = DeepSeekModel.from_pretrained("deepseek/v1")
model.config.attention_window = 512 # 设置滑动窗口大小
print(model.config.attention_window, model.generate([[1, 2, 3]], max_new_tokens=4).shape)
"""
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120, env=os.environ | {"HADAL_CACHE": str(tmp_path)}
    )
    assert done.stdout == "512 (1, 7)\n", done.stderr
