"""Packed models through the program: written, read, compared, continued."""

import json

import pytest
from conftest import GOLDEN, read_golden

TEXT = "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 8


def fails(hadal, code, message, *arguments):
    assert message in hadal.run(*arguments, expect=code).stderr


@pytest.fixture(scope="module")
def llama():
    return read_golden(GOLDEN / "llama")


@pytest.mark.parametrize("name", ["llama/model", "deepseek_v3/model", "gguf_llama_q4_0/model.gguf", "gguf_deepseek2_lite/model.gguf"])
@pytest.mark.parametrize("weights", ["w8", "w4"])
def test_a_packed_folder_is_the_model_packed_while_loading(hadal, tmp_path, name, weights):
    source, packed = GOLDEN / name, tmp_path / "packed"
    report = json.loads(hadal.run("quantize", source, packed, "--weights", weights, "--json").stdout)
    assert 0 < report["all"]["relative_error"] < (0.02 if weights == "w8" else 0.12)
    assert json.loads((packed / "config.json").read_text())["quantization_config"]["quant_method"] == "hadal"
    say = ("--raw", "-p", "hello there", "--max-tokens", 8, "--temperature", 0, "--ids", "--draft", "off")
    assert hadal.run("generate", packed, *say).stdout == hadal.run("generate", source, "--weights", weights, *say).stdout
    texts = ("tokenize", "-p", "a  Text, 123")
    assert hadal.run(texts[0], packed, *texts[1:]).stdout == hadal.run(texts[0], source, *texts[1:]).stdout
    types = json.loads(hadal.run("info", packed, "--json").stdout)["types"]
    assert weights.upper() in types and types[weights.upper()]["values"] > 1000


def test_what_is_begun_is_continued(hadal, llama, tmp_path):
    whole, begun = tmp_path / "whole", tmp_path / "begun"
    how = ("--weights", "w4", "--shard-size", 0.00002)
    hadal.run("quantize", llama.model, whole, *how)
    hadal.run("quantize", llama.model, begun, *how)
    shards = sorted(begun.glob("model-*.safetensors"))
    assert len(shards) > 3
    kept = shards[0].stat().st_mtime_ns
    for path in [shards[-1], begun / "config.json", begun / "model.safetensors.index.json"]:  # as if killed before they were written
        path.unlink()
    shards[-1].with_suffix(".safetensors.part").write_bytes(b"half")
    shards[1].write_bytes(shards[1].read_bytes()[:-1])  # a disk's fault
    hadal.run("quantize", llama.model, begun, *how)
    assert shards[0].stat().st_mtime_ns == kept
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == {p.name: p.read_bytes() for p in begun.iterdir()}


def test_what_cannot_be_packed_is_said(hadal, llama, tmp_path):
    fails(hadal, 2, "--weights is required", "quantize", llama.model, tmp_path / "a")
    fails(hadal, 2, "expected a model, SRC, and a folder to write, DST", "quantize", llama.model, "--weights", "w4")
    fails(hadal, 1, "expected PATTERN=TYPE", "quantize", llama.model, tmp_path / "a", "--weights", "w4", "--keep", "w8")
    fails(hadal, 1, 'called "w9"', "quantize", llama.model, tmp_path / "a", "--weights", "w4", "--keep", "*=w9")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("dear")
    fails(hadal, 1, "is not empty (it holds letter)", "quantize", llama.model, tmp_path / "full", "--weights", "w4")
    hadal.run("quantize", llama.model, tmp_path / "w4", "--weights", "w4")
    fails(hadal, 1, "is packed already", "quantize", tmp_path / "w4", tmp_path / "again", "--weights", "w8")
    fails(hadal, 1, "is packed already", "generate", tmp_path / "w4", "--weights", "w8", "--raw", "-p", "a")


def test_keep_keeps(hadal, llama, tmp_path):
    hadal.run("quantize", llama.model, tmp_path / "kept", "--weights", "w4", "--keep", "*.down_proj.weight=w8", "--keep", "*.o_proj.weight=bf16")
    types = json.loads(hadal.run("info", tmp_path / "kept", "--json").stdout)["types"]
    assert {"W4", "W8", "BF16"} <= set(types)


def test_a_reference_is_compared_with(hadal, llama):
    how = ("perplexity", llama.model, "-p", TEXT, "--context", 32, "--reference", llama.model, "--json")
    same = json.loads(hadal.run(*how).stdout)
    assert same["mean_kl"] < 1e-12 and same["same_top"] == 1 and same["change"] == 0
    packed = json.loads(hadal.run(*how, "--weights", "w2").stdout)
    assert packed["mean_kl"] > 1e-6 and packed["kl_99"] >= packed["mean_kl"] / 100
    assert packed["reference"]["perplexity"] == same["model"]["perplexity"]
    assert packed["change"] == pytest.approx(packed["model"]["perplexity"] / packed["reference"]["perplexity"] - 1)
