"""The models that come with hadal: found by name without a network, answering what their marks say, going on in plain sentences."""

import json
import re
import subprocess

import pytest
from conftest import ROOT

NAMES = ("nano-v1", "nano-v2", "nano-v2-student")
QUESTIONS = 300
DOCUMENT = (
    "The lamp costs 7 coins. Ben lives in Lisbon. The lamp lies in the crate. The crate is in the kitchen. "
    "Zoe is the mother of Ben. Kate lives in Oslo. Emma is a nurse."
)


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_what_its_marks_say(hadal, name):
    marks = json.loads((ROOT / "models" / name / "marks.json").read_text())["answers"]["worlds"]["all"]["exact"]
    report = json.loads(hadal.run("answers", name, "--questions", QUESTIONS, "--json").stdout)
    found = report["all"]
    assert found["exact"] == pytest.approx(marks, abs=3 * (marks * (1 - marks) / QUESTIONS) ** 0.5 + 0.01)
    lookup = next(group for group in report["groups"] if group.get("type") == "lookup" and "language" not in group)
    assert lookup["exact"] > 2 * lookup["majority"]


@pytest.mark.parametrize("name", NAMES)
def test_it_writes_sentences(hadal, name):
    for beginning, sentence in (("One morning the sun is shining. ", r"[A-Z][a-z]+ [^.]+\."), ("从前，", r"[\u4e00-\u9fff]{3,}[，。]")):
        written = hadal.run("generate", name, "--raw", "--temperature", 0, "--max-tokens", 40, "-p", beginning).stdout
        assert re.search(sentence, written), written
        assert "�" not in written.removesuffix("�")


def test_it_talks_about_a_document_without_a_network(hadal):
    asked = f"{DOCUMENT}\nWhere does Ben live?"
    for name in NAMES:
        assert hadal.run("generate", name, "--temperature", 0, "-p", asked).stdout.strip() == "Lisbon"
    done = subprocess.run([hadal.program, "chat", "nano-v2"], input="Where does Ben live?\nAnd Zoe?\n", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2


def test_they_are_listed_and_small(hadal):
    known = {model["name"]: model["here"] for model in json.loads(hadal.run("models", "--json").stdout)["known"]}
    assert all(known[name] for name in NAMES)
    for name in NAMES:
        assert sum(file.stat().st_size for file in (ROOT / "models" / name).iterdir()) < 10e6


def test_the_mixture_is_balanced(hadal):
    report = json.loads(hadal.run("balance", "nano-v2", "world_text:worlds", "--tokens", 200_000, "--json").stdout)
    assert all(layer["dead"] == 0 for layer in report["layers"])
    assert max(layer["max_violation"] for layer in report["layers"]) < 0.15
