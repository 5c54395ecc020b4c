"""hadal answers: questions answered, graded, and held against another model's answers."""

import itertools
import json
import shutil

import pytest
from conftest import GOLDEN

TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers") / "model"
    shutil.copytree(GOLDEN / "llama" / "model", folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 65536}))
    return folder


def ask(hadal, model, *more, expect=0):
    return hadal.run("answers", model, "--max-tokens", 3, "--questions", 14, *more, expect=expect)


def test_every_question_is_answered_and_graded(hadal, model, tmp_path):
    out = tmp_path / "answers.jsonl"
    report = json.loads(ask(hadal, model, "--json", "--out", out).stdout)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == report["all"]["questions"] == 14
    right = sum(line["answer"] == line["expected"] for line in lines)
    assert report["all"]["exact"] == right / 14
    assert sum(g["questions"] for g in report["groups"] if "type" in g and "language" not in g) == 14
    assert {line["language"] for line in lines} <= {"english", "chinese"}
    assert "majority" in ask(hadal, model).stdout


def test_a_model_agrees_with_itself(hadal, model, tmp_path):
    out = tmp_path / "answers.jsonl"
    ask(hadal, model, "--out", out)
    whole = json.loads(ask(hadal, model, "--json", "--against", out).stdout)["against"][0]
    assert whole["agreement"] == pytest.approx(1)
    assert "above chance" in ask(hadal, model, "--against", out).stdout
    # All right: the answers become what was expected, so the teacher reaches 100 %.
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    out.write_text("".join(json.dumps(line | {"answer": line["expected"]}) + "\n" for line in lines))
    whole = json.loads(ask(hadal, model, "--json", "--against", out).stdout)["against"][0]
    assert whole["teacher"] == 1
    assert whole["retention"] == whole["student"] == sum(line["answer"] == line["expected"] for line in lines) / 14


def test_answers_are_a_source_of_questions(hadal, model, tmp_path):
    out = tmp_path / "answers.jsonl"
    ask(hadal, model, "--out", out)
    lines = [json.loads(line) | {"answer": "42"} for line in out.read_text().splitlines()]
    out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = json.loads(ask(hadal, model, "--source", "jsonl", "--path", out, "--split", "all", "--json").stdout)
    assert report["all"]["questions"] == 14
    assert report["all"]["majority"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "nowhere"], 'unknown split "nowhere"'),
        (["--source", "nothing"], 'unknown kind of data source "nothing"'),
        (["--types", "riddle"], 'unknown type of question "riddle"'),
    ],
)
def test_says_what_is_wrong(hadal, model, arguments, message):
    assert message in ask(hadal, model, *arguments, expect=1).stderr


def test_answers_to_other_questions_are_refused(hadal, model, tmp_path):
    out = tmp_path / "answers.jsonl"
    ask(hadal, model, "--out", out)
    assert "answer other questions" in ask(hadal, model, "--data-seed", 5, "--against", out, expect=1).stderr
    out.write_text("\n".join(out.read_text().splitlines()[:5]) + "\n")
    assert "expected 14 answers, found 5" in ask(hadal, model, "--against", out, expect=1).stderr
    out.write_text("[1]\n")
    assert "answers.jsonl:1: expected an object" in ask(hadal, model, "--against", out, expect=1).stderr
    assert "base model without a chat template" in ask(hadal, GOLDEN / "llama" / "model", expect=1).stderr


def test_several_questions_about_a_document_are_each_asked_alone(hadal, model, tmp_path):
    out = tmp_path / "answers.jsonl"
    ask(hadal, model, "--per-document", 3, "--out", out, "--json")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    about = [list(group) for _, group in itertools.groupby(lines, key=lambda line: line["text"])]
    assert len(about) == 14
    assert max(map(len, about)) == 3
    for group in about:
        assert len({line["question"] for line in group}) == len(group)
        assert all(line["type"] for line in group)
