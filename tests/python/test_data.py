"""Tokenizers that hadal makes, as other packages read them; Parquet as JSON lines."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
RELEASE = ROOT / "build" / "release"
DUMP = RELEASE / "dump_data"
needs_programs = pytest.mark.skipif(not DUMP.exists() or not (RELEASE / "tokenize_lines").exists(), reason=f"{DUMP} is not built")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    subprocess.run([DUMP, "tokenizer", path, "1000"], check=True)
    return path


def examples(kind, split, count):
    out = subprocess.run([DUMP, "examples", kind, split, str(count)], check=True, capture_output=True).stdout
    return [text.decode() for text in out.split(b"\0")[:-1]]


@needs_programs
def test_ids_are_those_of_the_tokenizers_package(folder):
    tokenizers = pytest.importorskip("tokenizers")
    reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert reference.get_vocab_size() == 1000
    texts = examples("world_qa", "templates", 300) + examples("world_text", "train", 300)
    texts += ["", " ", "<user>3.14 + 2<end>", "don't  stop\n\n 你好世界 été 🦙", "the the\tthe", "1234567890", "x" * 200]
    sent = b"".join(b"%d\n%s" % (len(text.encode()), text.encode()) for text in texts)
    out = subprocess.run([RELEASE / "tokenize_lines", folder, "encode"], input=sent, check=True, capture_output=True).stdout.decode()
    ours = [[int(token) for token in line.split()] for line in out.splitlines()]
    for text, ids in zip(texts, ours, strict=True):
        assert ids == reference.encode(text, add_special_tokens=False).ids, text
        assert reference.decode(ids, skip_special_tokens=False) == text


@needs_programs
def test_transformers_writes_the_same_chat(folder):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<begin>", "<end>")
    talk = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    assert tokenizer.apply_chat_template(talk, tokenize=False) == "<begin><system>s<user>u<assistant>a<end>"
    assert tokenizer.apply_chat_template(talk[1:2], tokenize=False, add_generation_prompt=True) == "<begin><user>u<assistant>"


def parquet(*files):
    return subprocess.run([sys.executable, ROOT / "script" / "parquet", *files], capture_output=True, text=True, env=os.environ)


def test_parquet_as_json_lines(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    rows = [{"text": "one", "question": None, "n": 1}, {"text": "你好", "question": "q?", "n": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    done = parquet(tmp_path / "a.parquet", tmp_path / "a.parquet")
    assert [json.loads(line) for line in done.stdout.splitlines()] == rows * 2


def test_parquet_says_what_is_wrong(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "bad.parquet").write_text("no")
    for name in ("bad.parquet", "gone.parquet"):
        done = parquet(tmp_path / name)
        assert done.returncode == 1 and name in done.stderr and "Traceback" not in done.stderr
