"""hadal train: a run from the command line, killed and continued, and what goes wrong said clearly."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import time

import pytest

from conftest import ROOT

PROGRAM = pathlib.Path(os.environ.get("HADAL", ROOT / "build" / "release" / "hadal"))
TRAIN = PROGRAM.parent / "hadal-train"
pytestmark = pytest.mark.skipif(not TRAIN.exists(), reason="hadal-train is built where the torch wheel is (requirements-train.txt)")

RUN = """
output = "{output}"
tokenizer = "tokenizer"
precision = "f32"
[model]
model_type = "llama"
hidden_size = 64
intermediate_size = 128
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
max_position_embeddings = 512
tie_word_embeddings = true
[[data]]
kind = "world_qa"
rows = 8
tokens = 60_000
whole_rows = true
[batch]
length = 224
[optimizer]
learning_rate = 3e-3
[schedule]
steps = {steps}
warmup = 5
[save]
every = 10
type = "f32"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    write(folder, "first", 40)
    done = hadal(folder, "tokenizer", "first.toml", "--vocab", "400", "--output", "tokenizer")
    assert done.returncode == 0, done.stderr
    return folder


def write(folder, name, steps, extra=""):
    (folder / f"{name}.toml").write_text(RUN.format(output=folder / name, steps=steps) + extra)


def environment(folder):
    return {**os.environ, "HADAL_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def hadal(folder, *arguments, **more):
    return subprocess.run(
        [PROGRAM, *arguments], cwd=folder, env=environment(folder), text=True, capture_output=True, timeout=300, **more
    )


def test_overlap_of_tests_and_training(folder):
    write(folder, "checked", 1, '[[evaluation]]\nkind = "world_qa"\nsplit = "worlds"\n[[evaluation]]\nkind = "world_qa"\n')
    counts = ["--train-examples", "500", "--test-examples", "100"]
    done = hadal(folder, "overlap", "checked.toml", "--json", *counts)
    assert done.returncode == 0, done.stderr
    unseen, training = json.loads(done.stdout)
    assert unseen["test"] == "world_qa, worlds" and unseen["copied"] == 0 and unseen["test_examples"] == 100
    assert training["copied"] == 100 and training["shared_runs"] == training["runs"] > 100
    done = hadal(folder, "overlap", "checked.toml", "--limit", "0.5", *counts)
    assert done.returncode == 1 and "100 of 100 test examples are in the training data" in done.stderr
    assert "copied" in done.stdout  # what was counted is shown
    done = hadal(folder, "overlap", "first.toml")
    assert done.returncode == 1 and "[[evaluation]]" in done.stderr


def losses(output):
    return [line.split(",")[:2] for line in (output / "log.csv").read_text().splitlines()[1:]]


def test_a_run_that_is_killed_goes_on_bit_for_bit(folder):
    write(folder, "whole", 40)
    write(folder, "killed", 40)
    done = hadal(folder, "train", "whole.toml", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["finished"] and result["steps"] == 40

    first = subprocess.Popen([PROGRAM, "train", "killed.toml"], cwd=folder, env=environment(folder), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list((folder / "killed" / "state").glob("step-*1?")) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    again = hadal(folder, "train", "killed.toml")
    assert again.returncode == 1 and "--resume" in again.stderr
    done = hadal(folder, "train", "killed.toml", "--resume")
    assert done.returncode == 0, done.stderr
    assert losses(folder / "killed") == losses(folder / "whole")
    model = "model/model.safetensors"
    assert (folder / "killed" / model).read_bytes() == (folder / "whole" / model).read_bytes()
    assert float(losses(folder / "whole")[-1][1]) < float(losses(folder / "whole")[0][1]) - 1
    assert (folder / "whole" / "curves.svg").read_text().startswith("<svg")


def test_the_model_runs_in_the_engine(folder):
    done = hadal(folder, "generate", str(folder / "whole" / "model"), "-p", "The teacher of", "--max-tokens", "5")
    assert done.returncode == 0, done.stderr


def test_a_run_goes_on_from_the_model_that_the_command_names(folder):
    write(folder, "lesson", 5)
    text = (folder / "lesson.toml").read_text()
    (folder / "lesson.toml").write_text(text[: text.index("[model]")] + text[text.index("[[data]]") :])
    done = hadal(folder, "train", "lesson.toml")
    assert done.returncode == 1 and "--from" in done.stderr
    done = hadal(folder, "train", "lesson.toml", "--from", "whole/model", "--output", "next")
    assert done.returncode == 0, done.stderr
    assert float(losses(folder / "next")[0][1]) < float(losses(folder / "whole")[5][1])
    assert not (folder / "lesson").exists()


def test_what_is_wrong_is_said(folder):
    write(folder, "unknown", 5, "colour = 3\n")
    done = hadal(folder, "train", "unknown.toml")
    assert done.returncode == 1 and "unknown key 'colour'" in done.stderr
    done = hadal(folder, "train", "nothing.toml")
    assert done.returncode == 2 and "nothing.toml" in done.stderr
    (folder / "empty.txt").write_text("")
    text = (folder / "first.toml").read_text().replace('kind = "world_qa"', 'kind = "text"\npath = "empty.txt"')
    (folder / "empty.toml").write_text(text.replace("whole_rows = true\n", ""))
    done = hadal(folder, "train", "empty.toml", "--output", "empty")
    assert done.returncode == 1 and done.stderr.startswith("hadal: error: "), done.stderr


def test_a_full_disk_leaves_the_last_state(folder):
    write(folder, "full", 40)

    def small_files():  # as a full disk: writing fails, with an error and no signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = hadal(folder, "train", "full.toml", preexec_fn=small_files)
    assert done.returncode == 1 and "error" in done.stderr
    assert not list((folder / "full" / "state").glob("step-*[0-9]"))
    done = hadal(folder, "train", "full.toml", "--resume")
    assert done.returncode == 0, done.stderr
