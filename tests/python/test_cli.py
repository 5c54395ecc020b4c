"""The program as a person or a script meets it: every command on the tiny models, what it prints, and what it says when something is wrong."""

import contextlib
import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from cases import CASES
from conftest import GOLDEN, read_golden

GREEDY = ("--temperature", 0)
NEVER_END = ("--logit-bias", "299=-100")
ALWAYS_A = ("--logit-bias", "65=1000")
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"


@pytest.fixture(scope="module")
def llama():
    return read_golden(GOLDEN / "llama")


def copy_of(folder, model, template=None, **config):
    """The model in a folder of its own, with a chat template and other values in its config.json."""
    shutil.copytree(model, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    if template is not None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    return folder


@pytest.fixture
def chatty(llama, tmp_path):
    return copy_of(tmp_path / "chatty", llama.model, TEMPLATE, max_position_embeddings=65536)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HADAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return tmp_path / "cache"


def text_of(ids):
    return ",".join(map(str, ids))


def fails(hadal, code, message, *arguments, **options):
    stderr = hadal.run(*arguments, expect=code, **options).stderr
    assert stderr.startswith("hadal: error: ") and message in stderr, stderr


# What every command has in common.

COMMANDS = ("chat", "generate", "info", "tokenize", "detokenize", "logits", "perplexity", "models", "presets", "bench", "pull", "doctor")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_examples(hadal, command):
    text = hadal.run(command, "--help").stdout
    assert f"Usage: hadal {command}" in text and f"\n  hadal {command}" in text[text.index("Examples:") :]


def test_help_names_every_command(hadal):
    text = hadal.run().stdout
    assert text == hadal.run("--help").stdout
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", text, re.M), command


def test_version(hadal):
    assert re.fullmatch(r"hadal \d+\.\d+\.\d+\n", hadal.run("--version").stdout)


def test_wrong_command_lines(hadal, llama):
    fails(hadal, 2, "unknown command 'tell'", "tell")
    fails(hadal, 2, "MODEL is required", "generate")
    fails(hadal, 2, "--frobnicate", "generate", llama.model, "--frobnicate")
    fails(hadal, 2, "--chunk", "generate", llama.model, "-p", "x", "--chunk", 0)
    fails(hadal, 2, "--threads", "generate", llama.model, "-p", "x", "--threads", "many")
    fails(hadal, 2, "--cache", "logits", llama.model, "--ids", 1, "--out", "x", "--cache", "f8")
    fails(hadal, 2, "expected token ids like 1,2,3, found 'x'", "detokenize", llama.model, "--ids", "1,x")
    fails(hadal, 2, "expected token ids", "detokenize", llama.model, "--ids", "99999999999")
    fails(hadal, 2, "--prompt excludes --file", "generate", llama.model, "-p", "x", "-f", "y")
    fails(hadal, 2, "expected ID=VALUE", "generate", llama.model, "-p", "x", "--logit-bias", "5")
    assert "`hadal generate --help`" in hadal.run("generate", expect=2).stderr


def test_a_missing_model_says_what_to_do(hadal, tmp_path):
    fails(hadal, 1, "hadal models", "info", "no-such-model")
    fails(hadal, 1, "hadal pull owner/name", "info", "owner/name")
    fails(hadal, 1, "expected config.json or a .gguf file", "info", tmp_path)


def test_a_full_disk_behind_standard_output(hadal, llama):
    with open("/dev/full", "wb") as full:
        for arguments in (["presets"], ["info", llama.model], ["generate", llama.model, "-p", "x", *GREEDY]):
            done = subprocess.run([hadal.program, *map(str, arguments)], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
            assert done.returncode == 1
            assert done.stderr.startswith("hadal: error: cannot write to standard output: No space left on device"), done.stderr


def test_a_reader_that_goes_away_is_no_error(hadal, llama):
    arguments = [hadal.program, "generate", llama.model, "-p", "x", "--max-tokens", "500", *map(str, GREEDY + NEVER_END)]
    process = subprocess.Popen(list(map(str, arguments)), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(60) in (0, -signal.SIGPIPE)
    assert b"error" not in process.stderr.read()


# Text in and out.


def test_tokenize_and_back(hadal, llama, tmp_path):
    text = "the thing\nis 42: é你"
    ids = hadal.run("tokenize", llama.model, "-p", text).stdout.strip()
    assert hadal.run("detokenize", llama.model, "--ids", ids).stdout == text + "\n"
    (tmp_path / "text").write_text(text)
    assert hadal.run("tokenize", llama.model, "-f", tmp_path / "text").stdout.strip() == ids
    piped = subprocess.run([hadal.program, "tokenize", llama.model], input=text.encode(), capture_output=True, timeout=60)
    assert piped.stdout.decode().strip() == ids
    answer = json.loads(hadal.run("tokenize", llama.model, "-p", text, "--json", "--text").stdout)
    assert text_of(answer["ids"]) == ids and len(answer["pieces"]) == len(answer["ids"])
    assert json.loads(hadal.run("detokenize", llama.model, "--ids", ids, "--json").stdout) == {"text": text}
    assert hadal.run("tokenize", llama.model, "--begin", "-p", text).stdout.strip() == "297," + ids


def test_tokenize_shows_pieces(hadal, llama):
    lines = hadal.run("tokenize", llama.model, "--text", "-p", "the é").stdout.splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == ['"the"', '" "', '"\\xc3"', '"\\xa9"']


def test_tokenize_of_nothing(hadal, llama):
    assert hadal.run("tokenize", llama.model, "-p", "").stdout == "\n"
    assert json.loads(hadal.run("tokenize", llama.model, "-p", "", "--json").stdout) == {"ids": []}


def test_special_tokens_in_a_text(hadal, llama):
    text = "<｜end▁of▁sentence｜>"
    assert hadal.run("tokenize", llama.model, "-p", text).stdout == "299\n"
    assert len(hadal.run("tokenize", llama.model, "-p", text, "--plain").stdout.split(",")) > 5


def test_texts_that_cannot_be_read(hadal, llama, tmp_path):
    fails(hadal, 1, "No such file", "tokenize", llama.model, "-f", tmp_path / "absent")
    fails(hadal, 1, "it is a folder", "tokenize", llama.model, "-f", tmp_path)


def test_ids_out_of_range(hadal, llama, tmp_path):
    fails(hadal, 1, "token id 300 is out of range: expected 0 to 299", "detokenize", llama.model, "--ids", "1,300")
    fails(hadal, 1, "token id 300 is out of range", "logits", llama.model, "--ids", "1,300", "--out", tmp_path / "x.npy")
    fails(hadal, 1, "300 is out of range", "generate", llama.model, "--prompt-ids", "1,300")
    assert not list(tmp_path.glob("x.npy*"))


# generate


def test_generate_says_what_it_did(hadal, llama):
    done = hadal.run("generate", llama.model, "--raw", "-p", "HADAL 42", "--max-tokens", 5, *GREEDY, *ALWAYS_A)
    assert done.stdout == "AAAAA\n"
    assert re.fullmatch(r"8 prompt tokens at [\d.,]+/s, 5 tokens at [\d.,]+/s, finish: length\n", done.stderr), done.stderr


def test_generate_ids_and_logprobs(hadal, llama):
    arguments = ("generate", llama.model, "--prompt-ids", text_of(llama.ids[:8]), "--max-tokens", 6, "--cache", "f32", *GREEDY)
    assert hadal.run(*arguments, "--ids").stdout.strip() == text_of(llama.greedy[:6])
    lines = hadal.run(*arguments, "--logprobs", 2).stdout.splitlines()
    assert [int(line.split()[0]) for line in lines] == llama.greedy[:6]
    answer = json.loads(hadal.run(*arguments, "--logprobs", 2, "--json").stdout)
    assert answer["ids"] == llama.greedy[:6] and answer["finish"] == "length" and answer["tokens"] == 6
    for entry, id in zip(answer["logprobs"], answer["ids"], strict=True):
        assert entry["id"] == id == entry["top"][0]["id"] and len(entry["top"]) == 2
        assert entry["logprob"] == entry["top"][0]["logprob"] < 0 and entry["top"][1]["logprob"] <= entry["logprob"]


def test_logprobs_are_those_of_the_logits(hadal, llama, tmp_path):
    prompt = llama.ids[:8]
    options = ("--prompt-ids", text_of(prompt), "--max-tokens", 1, "--logprobs", 300, "--cache", "f32", "--json", "--seed", 3)
    entry = json.loads(hadal.run("generate", llama.model, *options).stdout)["logprobs"][0]
    row = hadal.logits(llama.model, prompt, tmp_path, "--cache", "f32")[-1].astype(np.float64)
    expected = row - np.log(np.exp(row - row.max()).sum()) - row.max()
    assert len(entry["top"]) == 300
    for top in entry["top"]:
        assert abs(top["logprob"] - expected[top["id"]]) < 1e-4


def test_the_same_seed_gives_the_same_text(hadal, llama):
    def ids(*options):
        return json.loads(hadal.run("generate", llama.model, "-p", "in", "--max-tokens", 20, "--json", *options).stdout)

    first = ids("--seed", 5, "--temperature", 2)
    assert first["seed"] == 5
    assert ids("--seed", 5, "--temperature", 2, "--threads", 1, "--chunk", 1)["ids"] == first["ids"]
    assert ids("--seed", 6, "--temperature", 2)["ids"] != first["ids"]
    drawn = ids("--temperature", 2)  # a seed of its own, told so that the text can be had again
    assert ids("--temperature", 2, "--seed", drawn["seed"])["ids"] == drawn["ids"]


def test_generation_config_recommends(hadal, llama, tmp_path):
    model = copy_of(tmp_path / "model", llama.model)
    recommend = lambda **values: (model / "generation_config.json").write_text(json.dumps({"do_sample": True} | values))
    ids = lambda *options: json.loads(hadal.run("generate", model, "-p", "in", "--max-tokens", 12, "--seed", 1, "--json", *options).stdout)["ids"]
    greedy = ids(*GREEDY)
    recommend(top_k=1)
    assert ids() == greedy
    assert ids("--top-k", 0, "--temperature", 5) != greedy
    recommend(temperature=1e-4)
    assert ids() == greedy


def test_stop_texts(hadal, llama):
    arguments = ("generate", llama.model, "--raw", "-p", "x", "--max-tokens", 9, *GREEDY, *ALWAYS_A)
    assert hadal.run(*arguments, "--stop", "AAA").stdout == ""
    answer = json.loads(hadal.run(*arguments, "--stop", "no", "--stop", "AAAA", "--json").stdout)
    assert answer["finish"] == "stop" and answer["text"] == "" and answer["tokens"] == 4


def test_end_tokens_end(hadal, llama):
    answer = json.loads(hadal.run("generate", llama.model, "-p", "x", "--logit-bias", "299=1000", "--json").stdout)
    assert answer["finish"] == "stop" and answer["ids"] == [] and answer["text"] == ""


def test_generate_uses_the_template(hadal, chatty):
    arguments = ("generate", chatty, "-p", "the thing", "--max-tokens", 9, "--json", *GREEDY)
    ids = hadal.run("tokenize", chatty, "-p", "user: the thing\nassistant:").stdout.strip()
    given = json.loads(hadal.run(*arguments).stdout)
    assert given["prompt_tokens"] == len(ids.split(","))
    assert given["ids"] == json.loads(hadal.run("generate", chatty, "--prompt-ids", ids, "--max-tokens", 9, "--json", *GREEDY).stdout)["ids"]
    assert json.loads(hadal.run(*arguments, "--raw").stdout)["prompt_tokens"] == len(hadal.run("tokenize", chatty, "-p", "the thing").stdout.split(","))
    told = json.loads(hadal.run(*arguments, "--system", "be brief").stdout)["prompt_tokens"]
    assert told == given["prompt_tokens"] + len(hadal.run("tokenize", chatty, "-p", "system: be brief\n").stdout.split(","))


def test_one_begin_token(hadal, llama, tmp_path):
    model = copy_of(tmp_path / "model", llama.model, "{{ bos_token }}{{ messages[0]['content'] }}")
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"add_bos_token": True}))
    count = lambda *options: json.loads(hadal.run("generate", model, "--max-tokens", 1, "--json", *options).stdout)["prompt_tokens"]
    assert count("-p", "HADAL") == 6  # the template's
    assert count("-p", "HADAL", "--raw") == 6  # the tokenizer's
    assert count("-p", "<｜begin▁of▁sentence｜>HADAL", "--raw") == 6  # the writer's


def test_reasoning_stands_apart(hadal, llama, tmp_path):
    model = copy_of(tmp_path / "model", llama.model, TEMPLATE + "<think>\n")
    arguments = ("generate", model, "-p", "x", "--max-tokens", 3, *GREEDY, *ALWAYS_A)
    assert hadal.run(*arguments).stdout == "<think>\nAAA\n"
    answer = json.loads(hadal.run(*arguments, "--json").stdout)
    assert answer["reasoning"] == "AAA" and answer["text"] == ""


def test_prompts_that_cannot_be_answered(hadal, llama):
    fails(hadal, 1, "the prompt is empty: give it with -p TEXT, -f FILE or on standard input", "generate", llama.model, "-p", "")
    fails(hadal, 1, "the prompt is too long: 512 tokens", "generate", llama.model, "--raw", "-p", "A" * 512)
    fails(hadal, 1, "temperature", "generate", llama.model, "-p", "x", "--temperature", -1)
    fails(hadal, 1, "tokenizer.json", "generate", GOLDEN / "deepseek" / "model", "-p", "x")
    hadal.run("generate", llama.model, "--raw", "-p", "A" * 511, "--max-tokens", 9, *GREEDY)


def test_a_cache_that_memory_cannot_hold(hadal, llama, tmp_path):
    model = copy_of(tmp_path / "model", llama.model, max_position_embeddings=2**31)
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    arguments = [hadal.program, "generate", model, "-p", "x", "--max-tokens", 2**31]
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=60, preexec_fn=limit)
    assert done.returncode == 1 and done.stderr.startswith("hadal: error: ") and "memory" in done.stderr, done.stderr


def test_ctrl_c_ends_generate(hadal, chatty):
    arguments = [hadal.program, "generate", chatty, "-p", "x", "--max-tokens", 60000, *GREEDY, *NEVER_END]
    process = subprocess.Popen(list(map(str, arguments)), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"finish: interrupted" in stderr and stdout.endswith(b"\n")


# logits, perplexity


def test_logits_go_to_a_file_whole_or_not_at_all(hadal, llama, tmp_path):
    out = tmp_path / "x.npy"
    assert hadal.run("logits", llama.model, "--ids", "1,2,3", "--out", out).stdout == f"{out}: float32 [3, 300]\n"
    assert np.load(out).shape == (3, 300) and np.load(out).dtype == np.float32
    assert json.loads(hadal.run("logits", llama.model, "--ids", "[1, 2]", "--out", out, "--json").stdout)["shape"] == [2, 300]
    before = out.read_bytes()

    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    arguments = [hadal.program, "logits", llama.model, "--ids", text_of(range(50)), "--out", out]
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=60, preexec_fn=no_room)
    assert done.returncode == 1 and f"cannot write {out}" in done.stderr, done.stderr
    assert out.read_bytes() == before and list(tmp_path.glob("x.npy*")) == [out]


def test_logits_that_cannot_be_written(hadal, llama, tmp_path):
    fails(hadal, 1, "cannot write", "logits", llama.model, "--ids", 1, "--out", tmp_path / "no" / "x.npy")
    fails(hadal, 1, "expected a regular file", "logits", llama.model, "--ids", 1, "--out", tmp_path)
    fails(hadal, 1, "expected a regular file", "logits", llama.model, "--ids", 1, "--out", "/dev/full")
    fails(hadal, 1, "513 tokens do not fit the model's context of 512", "logits", llama.model, "--ids", text_of([1] * 513), "--out", tmp_path / "x")
    fails(hadal, 1, "no tokens to evaluate", "logits", llama.model, "--ids", "", "--out", tmp_path / "x")


@pytest.mark.parametrize("chunk", (7, 512))
def test_perplexity_is_what_help_says(hadal, llama, tmp_path, chunk):
    text = "the thing is in the land and he was on the way to 42 others of that time, really. " * 3
    context = 40
    ids = list(map(int, hadal.run("tokenize", llama.model, "-p", text).stdout.split(",")))
    losses = []
    for start in range(0, len(ids) - context + 1, context):
        window = ids[start : start + context]
        logits = hadal.logits(llama.model, window, tmp_path, "--cache", "f32").astype(np.float64)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        losses += [-logits[i - 1][window[i]] for i in range(context // 2 + 1, context)]
    options = ("--context", context, "--chunk", chunk, "--cache", "f32")
    answer = json.loads(hadal.run("perplexity", llama.model, "-p", text, *options, "--json").stdout)
    assert answer["scored"] == len(losses) and answer["windows"] == len(ids) // context > 2
    assert answer["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)
    assert answer["standard_error"] == pytest.approx(np.exp(np.mean(losses)) * np.std(losses) / np.sqrt(len(losses) - 1), rel=1e-3)
    line = hadal.run("perplexity", llama.model, "-p", text, *options).stdout
    assert line.startswith(f"perplexity {answer['perplexity']:.4f} +- ")
    assert json.loads(hadal.run("perplexity", llama.model, "-p", text, *options, "--json", "--max-windows", 2).stdout)["windows"] == 2


def test_perplexity_of_too_little(hadal, llama):
    fails(hadal, 1, "the text has 8 tokens: expected at least one window of 512", "perplexity", llama.model, "-p", "HADAL 42")
    fails(hadal, 1, "a window of 600 tokens is out of range: expected 3 to 512", "perplexity", llama.model, "-p", "HADAL 42", "--context", 600)
    fails(hadal, 1, "the text has 0 tokens", "perplexity", llama.model, "-p", "")


# info, models, presets


def test_info(hadal, golden):
    answer = json.loads(hadal.run("info", golden.model, "--json").stdout)
    assert sum(part["bytes"] for part in answer["parts"].values()) == answer["stored"]["bytes"] == sum(t["bytes"] for t in answer["types"].values())
    assert answer["vocab"] == 300 and answer["parameters"]["active"] <= answer["parameters"]["total"]
    if golden.name not in {case.name for case in CASES if case.split_kv}:  # there the joined matrix is larger than its halves in the file
        assert answer["stored"]["bytes"] <= sum(file["bytes"] for file in answer["files"])
    assert "other" not in answer["parts"]
    text = hadal.run("info", golden.model).stdout
    assert f"{answer['parameters']['total']:,}" in text and answer["family"] in text


def test_info_of_a_template(hadal, chatty):
    assert json.loads(hadal.run("info", chatty, "--json").stdout)["chat_template"] == TEMPLATE
    assert "yes, " in hadal.run("info", chatty).stdout


def test_models_lists_what_is_cached(hadal, llama, cache):
    answer = json.loads(hadal.run("models", "--json").stdout)
    assert answer["cached"] == [] and {"smollm2", "v2-lite"} <= {known["name"] for known in answer["known"]}
    assert "nothing yet" in hadal.run("models").stdout
    copy_of(cache / "someone" / "tiny", llama.model)
    (cached,) = json.loads(hadal.run("models", "--json").stdout)["cached"]
    assert cached["name"] == "someone/tiny" and cached["bytes"] > 100000
    assert "someone/tiny" in hadal.run("models").stdout
    assert hadal.run("info", "someone/tiny").stdout


def test_presets_print_the_published_totals(hadal):
    text = hadal.run("presets").stdout
    for total in ("671,026,419,200", "235,741,434,880", "15,706,484,224", "16,375,728,128", "6,910,365,696", "1,346,471,936"):
        assert total in text
    totals = {entry["name"]: entry["total"] for entry in json.loads(hadal.run("presets", "--json").stdout)}
    assert totals["v3"] == 671026419200


def test_guesses_do_not_change_the_reply(hadal, llama):
    prompt = ",".join(["5,6,7,8"] * 12)
    for sampling in (GREEDY, ("--temperature", 0.5, "--seed", 3)):
        common = ("generate", llama.model, "--prompt-ids", prompt, "--max-tokens", 60, *sampling, *NEVER_END, "--json")
        answers = {how: json.loads(hadal.run(*common, "--draft", how).stdout) for how in ("off", "lookup", "auto")}
        assert answers["off"]["ids"] == answers["lookup"]["ids"] == answers["auto"]["ids"]
        assert answers["off"]["drafted"] == answers["off"]["accepted"] == 0
        assert 0 <= answers["lookup"]["accepted"] <= answers["lookup"]["drafted"]
    fails(hadal, 2, "--draft", "generate", llama.model, "-p", "x", "--draft", "sometimes")
    fails(hadal, 1, "has no draft layer", "generate", llama.model, "-p", "x", "--draft", "mtp")


def test_the_draft_layer_does_not_change_the_reply(hadal, llama, tmp_path):
    model = shutil.copytree(read_golden(GOLDEN / "deepseek_v3_bf16").model, tmp_path / "v3")
    for name in ("tokenizer.json", "tokenizer_config.json"):  # of the same vocabulary
        shutil.copy(llama.model / name, model)
    common = ("generate", model, "--prompt-ids", "5,6,7,8", "--max-tokens", 40, *GREEDY, *NEVER_END, "--json")
    answers = {how: json.loads(hadal.run(*common, "--draft", how).stdout) for how in ("off", "mtp", "auto")}
    assert answers["off"]["ids"] == answers["mtp"]["ids"] == answers["auto"]["ids"]
    assert answers["mtp"]["drafted"] > 0


# bench, doctor, pull


def test_bench(hadal, llama):
    options = ("--prompt", "16,64", "--generate", 4, "--depth", "0,70", "--batch", "1,3", "--repeat", 1, "--threads", 1)
    answer = json.loads(hadal.run("bench", llama.model, *options, "--json").stdout)
    assert [(r["test"], r["tokens"], r["depth"], r["batch"]) for r in answer["results"]] == [
        ("prefill", 16, 0, 1), ("prefill", 64, 0, 1), ("decode", 4, 0, 1), ("decode", 4, 0, 3), ("decode", 4, 70, 1), ("decode", 4, 70, 3)
    ]  # fmt: skip
    for result in answer["results"]:
        assert set(result) == {"test", "tokens", "depth", "batch", "tokens_per_second", "limit", "share"}
        assert result["tokens_per_second"] > 0 and result["limit"] > 0
        assert result["share"] == pytest.approx(result["tokens_per_second"] / result["limit"])
    assert len(answer["spread"]) == len(answer["results"]) and min(answer["spread"]) >= 0
    assert answer["machine"]["read_bandwidth"] > 1e8 and answer["machine"]["threads"] == 1
    limits = {(r["depth"], r["batch"]): r["limit"] for r in answer["results"] if r["test"] == "decode"}
    assert limits[0, 3] > limits[0, 1] and limits[70, 1] < limits[0, 1]
    lines = hadal.run("bench", llama.model, *options).stdout.splitlines()
    assert len(lines) == 7 and lines[0].split()[0] == "test"


def test_bench_profile(hadal, llama):
    options = ("--prompt", 64, "--generate", 4, "--depth", 70, "--profile")
    profiles = json.loads(hadal.run("bench", llama.model, *options, "--json").stdout)["profiles"]
    assert [(p["test"], p["tokens"], p["depth"]) for p in profiles] == [("decode", 1, 70), ("prefill", 64, 0)]
    for profile in profiles:
        assert sum(phase["share"] for phase in profile["phases"]) == pytest.approx(1)
        busy = {phase["phase"] for phase in profile["phases"] if phase["seconds"] > 0}
        assert busy >= {"norm", "q, k, v", "rope", "append", "attention", "output", "mlp", "head", "sampling"}
    text = hadal.run("bench", llama.model, *options).stdout
    assert re.search(r"^attention +\d", text, re.M) and text.count("phase") == 2


def test_bench_that_cannot_be(hadal, llama):
    fails(hadal, 2, "expected a MODEL or --preset NAME", "bench")
    fails(hadal, 2, "expected a MODEL or --preset NAME", "bench", llama.model, "--preset", "v3")
    fails(hadal, 1, "no-such-shape", "bench", "--preset", "no-such-shape")
    fails(hadal, 1, "do not fit the model's context of 512", "bench", llama.model, "--prompt", 513)
    fails(hadal, 1, "do not fit the model's context of 512", "bench", llama.model, "--depth", 513)
    fails(hadal, 1, "not enough memory for keys and values", "bench", llama.model, "--depth", 512, "--batch", 1 << 24)
    fails(hadal, 2, "nothing to measure", "bench", llama.model, "--prompt", 0, "--generate", 0)


def test_doctor(hadal):
    answer = json.loads(hadal.run("doctor", "--json", "--threads", 1).stdout)
    assert answer["threads"] == 1 and answer["memory"] >= answer["available"] > 0
    assert [level["name"] for level in answer["levels"] if level["used"]] == [answer["isa"]]
    assert answer["read_bandwidth"]["one"] > 1e8 and answer["peak_flops"]["all"] > 1e8
    small = next(model for model in answer["models"] if model["name"] == "smollm2-135m")
    assert small["weights"] == 2 * 134515008 and small["fits"]
    text = hadal.run("doctor").stdout
    assert answer["isa"] in text and "smollm2-135m" in text


def test_the_level_can_be_lowered(hadal):
    assert json.loads(hadal.run("doctor", "--json", isa="scalar").stdout)["isa"] == "scalar"
    fails(hadal, 1, "HADAL_ISA", "presets", isa="sse9")


def test_pull_of_what_is_no_name(hadal):
    fails(hadal, 2, "NAME is required", "pull")
    fails(hadal, 1, "../etc", "pull", "../etc")


# chat


class Terminal:
    """A chat on a terminal of its own."""

    def __init__(self, hadal, *arguments):
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.execv(hadal.program, [str(hadal.program), "chat", *map(str, arguments)])
        self.seen = ""

    def expect(self, text, seconds=30):
        """Waits for `text` and returns all up to its end."""
        until = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < until, f"waited for {text!r}, saw {self.seen[-2000:]!r}"
            if select.select([self.file], [], [], 0.1)[0]:
                try:
                    read = os.read(self.file, 65536)
                except OSError:  # the other side is closed
                    read = b""
                assert read, f"ended before {text!r}, saw {self.seen[-2000:]!r}"
                self.seen += read.decode(errors="replace")
        at = self.seen.index(text) + len(text)
        before, self.seen = self.seen[:at], self.seen[at:]
        return before

    def send(self, text):
        os.write(self.file, text.encode())

    def press(self, keys, text, seconds=30):
        """Sends `keys` until `text` shows: the editor drops what is typed while it takes over the terminal."""
        for _ in range(seconds):
            self.send(keys)
            with contextlib.suppress(AssertionError):
                return self.expect(text, 1)
        pytest.fail(f"waited for {text!r}, saw {self.seen[-2000:]!r}")

    def leave(self, seconds=30):
        """Ctrl-U and Ctrl-D until the program ends: the editor drops what is typed while it takes over the terminal."""
        for _ in range(seconds):
            with contextlib.suppress(OSError):  # it has just ended
                self.send("\x15\x04")
            with contextlib.suppress(TimeoutError):
                return self.ends(1)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        pytest.fail(f"still there; saw {self.seen[-2000:]!r}")

    def ends(self, seconds=30):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if select.select([self.file], [], [], 0.05)[0]:
                try:
                    self.seen += os.read(self.file, 65536).decode(errors="replace")
                except OSError:
                    pass
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                os.close(self.file)
                return os.waitstatus_to_exitcode(status)
        raise TimeoutError(f"still there; saw {self.seen[-2000:]!r}")


def test_a_talk(hadal, chatty, tmp_path, cache):
    chat = Terminal(hadal, chatty, "--max-tokens", 5, *GREEDY, *ALWAYS_A)
    chat.expect("/help lists the commands")
    chat.expect("> ")
    chat.send("hello\n")
    chat.expect("AAAAA")
    chat.expect("(cut after --max-tokens 5)")
    chat.send("/stats\n")
    chat.expect("finish: length")
    chat.expect("context: ")
    chat.send("/retry\n")
    chat.expect("AAAAA")
    chat.send("/system Be brief.\n")
    chat.expect("System message set")
    chat.send(f"/save {tmp_path}/talk.json\n")
    chat.expect("Saved 3 messages")
    chat.send("/nonsense\n")
    chat.expect("There is no command /nonsense: /help lists them.")
    chat.send("/help\n")
    chat.expect("/retry ")
    chat.send("/reset\n")
    chat.expect("The talk starts anew.")
    chat.send("/retry\n")
    chat.expect("There is nothing to answer yet.")
    chat.send(f"/load {tmp_path}/absent.json\n")
    chat.expect("error: cannot open")
    chat.send(f"/load {tmp_path}/talk.json\n")
    chat.expect("Loaded 3 messages")
    chat.expect("> ")
    assert chat.leave() == 0
    messages = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant"]
    assert messages[0]["content"] == "Be brief." and messages[1]["content"] == "hello" and messages[2]["content"] == "AAAAA"
    assert "hello" in (cache / "chat_history").read_text()


def test_history_comes_back_with_the_arrow(hadal, chatty):
    for round in range(2):
        chat = Terminal(hadal, chatty, "--max-tokens", 3, *GREEDY, *ALWAYS_A)
        chat.expect("> ")
        chat.send("unmistakable\n" if round == 0 else "\x1b[A\x1b[A")  # behind /exit
        chat.expect("unmistakable")
        if round == 1:
            chat.send("\n")
        chat.expect("AAA")
        chat.send("/exit\n")
        assert chat.ends() == 0


def test_a_line_can_be_edited(hadal, chatty, tmp_path):
    chat = Terminal(hadal, chatty, "--max-tokens", 1, *GREEDY, *ALWAYS_A)
    chat.expect("> ")
    chat.send("wörld\x01hello \x05!x\x7f\n")  # start of line, end of line, backspace
    chat.expect("(cut")
    chat.send("one \\\n")
    chat.expect(". ")
    chat.send("two\n")
    chat.expect("(cut")
    chat.send(f"/save {tmp_path}/talk.json\n")
    chat.expect("Saved")
    chat.expect("> ")
    assert chat.leave() == 0
    assert [m["content"] for m in json.loads((tmp_path / "talk.json").read_text())["messages"]] == ["hello wörld!", "A", "one \ntwo", "A"]


def test_ctrl_c_stops_the_reply_and_not_the_program(hadal, chatty):
    chat = Terminal(hadal, chatty, *GREEDY, *ALWAYS_A)
    chat.expect("> ")
    for _ in range(2):
        chat.send("go on\n")
        chat.expect("AAAAAAAA")
        chat.send("\x03")
        chat.expect("(stopped)")
        chat.expect("> ")
    chat.press("half a line\x03", "Ctrl-D leaves.")
    chat.expect("> ")
    assert chat.leave() == 0


def test_a_full_context_is_said(hadal, chatty):
    chat = Terminal(hadal, chatty, "--context", 64, *GREEDY, *ALWAYS_A)
    chat.expect("context of 64 tokens")
    chat.send("go\n")
    chat.expect("(cut: the context of 64 tokens is full; /reset starts anew)")
    chat.send("more\n")
    chat.expect("The context is full: the talk takes ")
    chat.expect("/reset starts anew")
    chat.send("/reset\n")
    chat.expect("The talk starts anew.")
    chat.send("x\n")
    chat.expect("AAAA")
    chat.expect("> ")
    assert chat.leave() == 0


def test_a_full_context_forgets_the_oldest_part(hadal, chatty):
    chat = Terminal(hadal, chatty, "--context", 192, "--max-tokens", 300, *GREEDY, *ALWAYS_A)
    for _ in range(2):
        chat.send("go\n")
        chat.expect("(the context of 192 tokens is full: the oldest part of the talk is forgotten)")
    chat.send("/stats\n")
    chat.expect("300 tokens")
    chat.expect("context: 192 of 192 tokens")
    assert chat.leave() == 0


def test_thinking_is_dimmed(hadal, llama, tmp_path):
    chat = Terminal(hadal, copy_of(tmp_path / "model", llama.model, TEMPLATE + "<think>\n"), "--max-tokens", 3, *GREEDY, *ALWAYS_A)
    chat.expect("> ")
    chat.send("x\n")
    chat.expect("\x1b[2mAAA\x1b[0m")
    chat.expect("> ")
    assert chat.leave() == 0


def test_a_talk_through_a_pipe(hadal, chatty):
    arguments = [hadal.program, "chat", chatty, "--max-tokens", 2, *GREEDY, *ALWAYS_A]
    done = subprocess.run(list(map(str, arguments)), input="one\n\ntwo\n", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == "AA\nAA\n"


def test_a_base_model_cannot_chat(hadal, llama):
    fails(hadal, 1, "has no chat template", "chat", llama.model)


def test_the_default_model_is_named_when_it_is_not_there(hadal):
    fails(hadal, 1, "the model smollm2 is not installed", "chat")
