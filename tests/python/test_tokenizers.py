"""Texts and ids agree with the `tokenizers` package, both ways.

The files: small vocabularies trained here with every kind of pre-tokenizer, and the published tokenizer.json files below
$HADAL_TOKENIZERS (a colon-separated list of folders), by default ../shared/tokenizers beside the checkout.
$HADAL_TOKENIZER_TEXTS is how many random texts each gets (10,000 for the published files, fewer for the trained ones).
"""

import json
import os
import pathlib
import random
import subprocess
import unicodedata

import pytest

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = pathlib.Path(os.environ.get("HADAL_TOKENIZE_LINES", ROOT / "build" / "release" / "tokenize_lines"))
PUBLISHED = [
    file
    for folder in os.environ.get("HADAL_TOKENIZERS", str(ROOT.parent / "shared" / "tokenizers")).split(":")
    for file in sorted(pathlib.Path(folder).glob("**/tokenizer.json"))
]
TEXTS = int(os.environ.get("HADAL_TOKENIZER_TEXTS", 10_000))

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"{PROGRAM} is not built")

SPACES = " \t\n\r\v\f\x1c\x1f\x85\xa0\u1680\u180e\u2000\u2003\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
SCRIPTS = [
    (0x20, 0x7F), (0x41, 0x5B), (0x61, 0x7B), (0x30, 0x3A), (0x21, 0x30), (0x00, 0x20), (0x80, 0x180), (0x180, 0x250), (0x300, 0x370),
    (0x370, 0x530), (0x590, 0x700), (0x900, 0xE00), (0xE00, 0x1200), (0x1100, 0x1200), (0x1AB0, 0x1B00), (0x1D00, 0x2000), (0x2000, 0x2070),
    (0x2070, 0x2400), (0x2460, 0x2600), (0x2E80, 0x3000), (0x3000, 0x3100), (0x3400, 0x3500), (0x4E00, 0xA000), (0xA000, 0xAC00),
    (0xAC00, 0xD7A4), (0xF900, 0xFB00), (0xFB00, 0x10000), (0x10000, 0x12000), (0x16000, 0x17000), (0x1D000, 0x1D400), (0x1D400, 0x1D800),
    (0x1E000, 0x1F000), (0x1F000, 0x1FC00), (0x20000, 0x20100), (0x2EBF0, 0x2EC00), (0x31350, 0x31400), (0xE0000, 0xE01F0),
    (0x10FFF0, 0x110000), (0xE000, 0xE010),
]  # fmt: skip
WORDS = "the quick brown fox's don't I'LL we'VE Hello WORLD x1 3.14159 1234567 été naïve Führer Ångström e\u0301 가각 한국어 你好 世界 日本語 カ\u3099 привет мир".split()
EMOJI = ["🦙", "👩‍👩‍👧", "🇩🇪", "👍🏽", "❤️", "1️⃣"]


def random_text(rng, extra):
    parts = []
    for _ in range(rng.randint(1, 12)):
        kind = rng.random()
        if kind < 0.3:
            first, last = rng.choice(SCRIPTS)
            parts.append("".join(chr(rng.randrange(first, last)) for _ in range(rng.randint(1, 6))))
        elif kind < 0.5:
            parts.append("".join(rng.choice(SPACES if rng.random() < 0.3 else " \n") for _ in range(rng.randint(1, 5))))
        elif kind < 0.75:
            parts.append(rng.choice(WORDS) + rng.choice(["", " ", "  ", "\n", ",", ".\r\n", "\u0323\u0301"]))
        elif kind < 0.8:
            parts.append(rng.choice(EMOJI))
        elif kind < 0.9 and extra:
            token = rng.choice(extra)
            parts.append(token if rng.random() < 0.8 else token[: rng.randint(1, len(token))])
        else:
            point = rng.randrange(0x110000)
            parts.append(chr(point) if not 0xD800 <= point < 0xE000 else "?")
    return "".join(parts)


def encode(file, texts):
    data = b"".join(b"%d\n" % len(text) + text for text in texts)
    done = subprocess.run([PROGRAM, file, "encode"], input=data, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    return [[int(token) for token in line.split()] for line in done.stdout.split(b"\n")[:-1]]


def decode(file, ids):
    data = "".join(" ".join(map(str, line)) + "\n" for line in ids).encode()
    done = subprocess.run([PROGRAM, file, "decode"], input=data, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    texts, rest = [], done.stdout
    while rest:
        size, rest = rest.split(b"\n", 1)
        texts.append(rest[: int(size)])
        rest = rest[int(size) :]
    return texts


def compare(file, count, seed=1):
    reference = tokenizers.Tokenizer.from_file(str(file))
    added = reference.get_added_tokens_decoder()
    rng = random.Random(seed)
    texts = [random_text(rng, [token.content for token in added.values()]) for _ in range(count)]
    expected = [encoding.ids for encoding in reference.encode_batch(texts, add_special_tokens=False)]
    found = encode(file, [text.encode() for text in texts])
    wrong = [(t, e, f) for t, e, f in zip(texts, expected, found, strict=True) if e != f]
    assert not wrong, f"{len(wrong)} of {count} texts differ; the first: {wrong[0]}"

    # An added token with a Latin-1 letter stands for its text; `tokenizers` takes the letter for a byte in GPT-2's alphabet.
    letters = {i for i, token in added.items() if any(0x7F < ord(letter) < 0x144 for letter in unicodedata.normalize("NFC", token.content))}
    plain = [ids for ids in expected if not letters & set(ids)]
    assert len(plain) > count // 2
    decoded = reference.decode_batch(plain, skip_special_tokens=False)
    for ids, theirs, ours in zip(plain, decoded, decode(file, plain), strict=True):
        assert ours.decode(errors="replace") == theirs, ids
    # And random ids, which cut characters anywhere.
    size = reference.get_vocab_size()
    ids = [[rng.randrange(size) for _ in range(rng.randint(1, 8))] for _ in range(1000)]
    ids = [line for line in ids if not letters & set(line)]
    for line, theirs, ours in zip(ids, reference.decode_batch(ids, skip_special_tokens=False), decode(file, ids), strict=True):
        assert ours.decode(errors="replace") == theirs, line


def write_gguf(file, pre, out):
    """The same tokenizer as llama.cpp's converter writes it: with the pre-tokenizer's name alone."""
    gguf = pytest.importorskip("gguf")
    content = json.loads(file.read_text())
    added = {token["id"]: token for token in content["added_tokens"]}
    by_id = {i: text for text, i in content["model"]["vocab"].items()} | {i: token["content"] for i, token in added.items()}
    writer = gguf.GGUFWriter(str(out), "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([by_id.get(i, f"[PAD{i}]") for i in range(max(by_id) + 1)])
    kinds = (gguf.TokenType.USER_DEFINED, gguf.TokenType.CONTROL)
    writer.add_token_types(
        [kinds[added[i]["special"]] if i in added else gguf.TokenType.NORMAL if i in by_id else gguf.TokenType.UNUSED for i in range(max(by_id) + 1)]
    )
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def compare_gguf(file, pre, out, count):
    write_gguf(file, pre, out)
    rng = random.Random(2)
    added = [token["content"] for token in json.loads(file.read_text())["added_tokens"]]
    texts = [random_text(rng, added).encode() for _ in range(count)]
    for text, theirs, ours in zip(texts, encode(file, texts), encode(out, texts), strict=True):
        assert theirs == ours, text.decode()


@pytest.mark.skipif(not PUBLISHED, reason="no published tokenizer.json: set HADAL_TOKENIZERS")
@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.parent.name)
def test_published(file, tmp_path):
    compare(file, TEXTS)
    if file.parent.name in ("deepseek-llm", "deepseek-coder", "deepseek-v3"):
        compare_gguf(file, file.parent.name, tmp_path / "model.gguf", TEXTS)


QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES_ONLY = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(pattern, behavior, invert)


PRE_TOKENIZERS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "prefix_space": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "prefix_space_each": pre_tokenizers.Sequence([split("-"), pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)]),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    "qwen2": pre_tokenizers.Sequence([split(Regex(QWEN2)), BYTES_ONLY]),
    "llama3": pre_tokenizers.Sequence([split(Regex(QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|"))), BYTES_ONLY]),
    "digit_runs": pre_tokenizers.Sequence([pre_tokenizers.Digits(False), BYTES_ONLY]),
    "punctuation": pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), BYTES_ONLY]),
    "previous": pre_tokenizers.Sequence([split(" ", "merged_with_previous"), split("o", "merged_with_previous", True), BYTES_ONLY]),
    "next": pre_tokenizers.Sequence([split(" ", "merged_with_next"), split(Regex("[aeiou]"), "merged_with_next", True), BYTES_ONLY]),
    "contiguous": pre_tokenizers.Sequence([split(Regex(r"\s"), "contiguous"), split("'", "contiguous", True), BYTES_ONLY]),
    "removed": pre_tokenizers.Sequence([split(Regex(r"\s+"), "removed"), split(Regex(r"[\S]+"), "removed", True), BYTES_ONLY]),
    "empty_matches": pre_tokenizers.Sequence([split(Regex(r"x*")), BYTES_ONLY]),
    "lines": pre_tokenizers.Sequence([split(Regex(r"^\s+|\s+$")), split(Regex(r"\s+$")), split(Regex(r"\S\D.")), BYTES_ONLY]),
}


@pytest.fixture(scope="session")
def corpus():
    rng = random.Random(7)
    return [random_text(rng, []) for _ in range(2000)] + [(ROOT / "README.md").read_text()]


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_trained(name, corpus, tmp_path):
    trained = tokenizers.Tokenizer(models.BPE())
    trained.normalizer = normalizers.NFC() if name in ("qwen2", "gpt2") else None
    trained.pre_tokenizer = PRE_TOKENIZERS[name]
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=1200, initial_alphabet=alphabet, show_progress=False))
    trained.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    trained.add_tokens(["<think>", "<think>\n", "Ǻ", "e\u0301te", AddedToken("<left>", lstrip=True), AddedToken("<right>", rstrip=True, normalized=False)])
    file = tmp_path / "tokenizer.json"
    trained.save(str(file))
    if name == "llama3":
        content = json.loads(file.read_text())
        content["model"]["ignore_merges"] = True
        content["model"]["merges"] = content["model"]["merges"][:300]  # so that whole pieces are tokens that merging does not reach
        file.write_text(json.dumps(content))
    compare(file, min(TEXTS, 2000))
    pre = {"gpt2": "gpt-2", "smollm": "smollm", "qwen2": "qwen2", "llama3": "llama-bpe"}.get(name)
    if pre:
        content = json.loads(file.read_text())  # GGUF knows no white space around a token, and no form C but by the name qwen2
        for token in content["added_tokens"]:
            token["lstrip"] = token["rstrip"] = token["normalized"] = False
        if name == "gpt2":
            content["normalizer"] = None
        file.write_text(json.dumps(content))
        compare_gguf(file, pre, tmp_path / "model.gguf", min(TEXTS, 2000))
