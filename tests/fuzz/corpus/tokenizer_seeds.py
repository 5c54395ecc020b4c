#!/usr/bin/env python3
"""Writes the seeds of fuzz_tokenizer: a tokenizer.json, a tokenizer_config.json and a text, separated by NUL."""

import json
import pathlib

HERE = pathlib.Path(__file__).parent / "tokenizer"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
V3 = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def seed(name, pre, text, config=None, normalizer=None, post=None, **model):
    pieces = [*"abcdehlot0123", "Ġ", "Ċ", "Ã", "©", "ab", "Ġa", "he", "ll", "hell", "hello"]
    content = {
        "added_tokens": [
            {"id": len(pieces), "content": "<s>", "special": True, "normalized": False},
            {"id": len(pieces) + 1, "content": "<think>", "lstrip": True, "rstrip": True, "normalized": True},
        ],
        "normalizer": normalizer,
        "pre_tokenizer": pre,
        "post_processor": post,
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {p: i for i, p in enumerate(pieces)}, "merges": ["a b", ["Ġ", "a"], "h e", "l l", "he ll", "hell o"], **model},
    }
    parts = [json.dumps(content, ensure_ascii=False), json.dumps(config or {}, ensure_ascii=False), text]
    (HERE / name).write_bytes("\0".join(parts).encode())


HERE.mkdir(exist_ok=True)
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [23], "tokens": ["<s>"]}},
}
seed("gpt2", {"type": "ByteLevel"}, "hello <think> ab\n 123", {"bos_token": "<s>", "eos_token": {"content": "<s>"}, "add_bos_token": True})
seed("qwen2", {"type": "Sequence", "pretokenizers": [split({"Regex": QWEN2}), BYTES]}, "he's\n\n  e\u0301té", normalizer={"type": "NFC"}, ignore_merges=True)
seed("v3", {"type": "Sequence", "pretokenizers": [split({"Regex": r"\p{N}{1,3}"}), split({"Regex": V3}), BYTES]}, "<s>hello, ab", post=TEMPLATE)
seed("digits", {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, {"type": "Punctuation"}, BYTES]}, "1 2,3 <th")
seed("behaviors", {"type": "Sequence", "pretokenizers": [
    split({"String": " "}, "MergedWithPrevious"), split({"Regex": r"\s+$"}, "Removed"), split({"Regex": "a*"}, "MergedWithNext", True),
    split({"Regex": r"[^\S]"}, "Contiguous"), BYTES,
]}, "a b  ab  ")  # fmt: skip
