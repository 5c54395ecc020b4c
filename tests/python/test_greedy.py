"""Greedy continuations against the published implementation, 64 tokens."""

import json

import pytest
from cases import CASES, EXACT
from conftest import GOLDEN, read_golden

PROMPT = 8
TESTED = [case for case in CASES if case.small and case.tolerance == EXACT]


@pytest.mark.parametrize("name", [case.name for case in TESTED])
def test_every_choice(hadal, isa, name, tmp_path):
    """Fed the expected text, the most likely next token is the expected one at every step: then the continuation is the same."""
    golden = read_golden(GOLDEN / name)
    logits = hadal.logits(golden.model, golden.ids[:PROMPT] + golden.greedy[:-1], tmp_path, "--cache", "f32", isa=isa)
    assert logits[PROMPT - 1 :].argmax(-1).tolist() == golden.greedy


@pytest.mark.parametrize("name", [case.name for case in TESTED if case.tokenizer])
def test_generate(hadal, isa, name):
    """The same through the engine."""
    golden = read_golden(GOLDEN / name)
    ids = ",".join(map(str, golden.ids[:PROMPT]))
    options = ("--temperature", 0, "--max-tokens", len(golden.greedy), "--cache", "f32", "--json")
    assert json.loads(hadal.run("generate", golden.model, "--prompt-ids", ids, *options, isa=isa).stdout)["ids"] == golden.greedy


@pytest.mark.parametrize("name", [case.name for case in TESTED if case.tokenizer])
def test_generate_from_text(hadal, name):
    """The first eight ids are the letters of a text."""
    import tokenizer

    golden = read_golden(GOLDEN / name)
    options = ("--raw", "--temperature", 0, "--max-tokens", len(golden.greedy), "--cache", "f32", "--json")
    answer = json.loads(hadal.run("generate", golden.model, "-p", tokenizer.PROMPT, *options).stdout)
    assert answer["ids"] == golden.greedy and answer["prompt_tokens"] == PROMPT
