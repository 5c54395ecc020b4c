"""A byte-level tokenizer of exactly 300 tokens: 256 bytes (id = byte), 41 merges, begin, pad, end."""

import json

PAIRS = "t h|th e|i n|a n|e r|an d|in g|o n|r e|e n|a t|o r|h e|e s|i t|a l|o u|s t|i s|n t|t o|l e|v e|m e|s e|i c|r o|c o|d e|r a|l i|h i|o f|b e|w a|m a|p e|u r|th at|th is|l y"
SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜▁pad▁｜>", "<｜end▁of▁sentence｜>"]
PROMPT = "HADAL 42"  # eight tokens, for no merge has an upper case letter or a digit


def byte_letters():
    """GPT-2's printable stand-in for every byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def pieces():
    return byte_letters() + [pair.replace(" ", "") for pair in PAIRS.split("|")] + SPECIAL


def merges():
    return PAIRS.split("|")


def write_json(folder):
    split = lambda regex: {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    count = len(pieces()) - len(SPECIAL)
    added = [
        {"id": count + i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for i, text in enumerate(SPECIAL)
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                split("[\r\n]"),
                split("\\s?\\p{L}+"),
                split("\\s?\\p{P}+"),
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {piece: i for i, piece in enumerate(pieces()[:count])},
            "merges": merges(),
        },
    }
    config = {
        "add_bos_token": False,
        "add_eos_token": False,
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[2],
        "pad_token": SPECIAL[1],
        "tokenizer_class": "LlamaTokenizerFast",
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1) + "\n")


def write_gguf(writer, pre):
    kinds = [1] * (len(pieces()) - len(SPECIAL)) + [3] * len(SPECIAL)  # 1: normal, 3: control
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(pieces())
    writer.add_token_types(kinds)
    writer.add_token_merges(merges())
    writer.add_bos_token_id(len(pieces()) - 3)
    writer.add_pad_token_id(len(pieces()) - 2)
    writer.add_eos_token_id(len(pieces()) - 1)
    writer.add_add_bos_token(False)
