"""hadal generate, logits and perplexity on the tiny models: what they print, and what they say when something is wrong."""

import json
import re
import resource
import shutil
import signal
import subprocess

import numpy as np
import pytest
from conftest import GOLDEN, TEMPLATE, copy_of, read_golden

GREEDY = ("--temperature", 0)
NEVER_END = ("--logit-bias", "299=-100")
ALWAYS_A = ("--logit-bias", "65=1000")
pytestmark = pytest.mark.usefixtures("cache")


def text_of(ids):
    return ",".join(map(str, ids))


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
    hadal.fails(1, "the prompt is empty: give it with -p TEXT, -f FILE or on standard input", "generate", llama.model, "-p", "")
    hadal.fails(1, "the prompt is too long: 512 tokens", "generate", llama.model, "--raw", "-p", "A" * 512)
    hadal.fails(1, "temperature", "generate", llama.model, "-p", "x", "--temperature", -1)
    hadal.fails(1, "tokenizer.json", "generate", GOLDEN / "deepseek" / "model", "-p", "x")
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
    hadal.fails(1, "cannot write", "logits", llama.model, "--ids", 1, "--out", tmp_path / "no" / "x.npy")
    hadal.fails(1, "expected a regular file", "logits", llama.model, "--ids", 1, "--out", tmp_path)
    hadal.fails(1, "expected a regular file", "logits", llama.model, "--ids", 1, "--out", "/dev/full")
    hadal.fails(1, "513 tokens do not fit the model's context of 512", "logits", llama.model, "--ids", text_of([1] * 513), "--out", tmp_path / "x")
    hadal.fails(1, "no tokens to evaluate", "logits", llama.model, "--ids", "", "--out", tmp_path / "x")


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
    hadal.fails(1, "the text has 8 tokens: expected at least one window of 512", "perplexity", llama.model, "-p", "HADAL 42")
    hadal.fails(1, "a window of 600 tokens is out of range: expected 3 to 512", "perplexity", llama.model, "-p", "HADAL 42", "--context", 600)
    hadal.fails(1, "the text has 0 tokens", "perplexity", llama.model, "-p", "")


def test_guesses_do_not_change_the_reply(hadal, llama):
    prompt = ",".join(["5,6,7,8"] * 12)
    for sampling in (GREEDY, ("--temperature", 0.5, "--seed", 3)):
        common = ("generate", llama.model, "--prompt-ids", prompt, "--max-tokens", 60, *sampling, *NEVER_END, "--json")
        answers = {how: json.loads(hadal.run(*common, "--draft", how).stdout) for how in ("off", "lookup", "auto")}
        assert answers["off"]["ids"] == answers["lookup"]["ids"] == answers["auto"]["ids"]
        assert answers["off"]["drafted"] == answers["off"]["accepted"] == 0
        assert 0 <= answers["lookup"]["accepted"] <= answers["lookup"]["drafted"]
    hadal.fails(2, "--draft", "generate", llama.model, "-p", "x", "--draft", "sometimes")
    hadal.fails(1, "has no draft layer", "generate", llama.model, "-p", "x", "--draft", "mtp")


def test_the_draft_layer_does_not_change_the_reply(hadal, llama, tmp_path):
    model = shutil.copytree(read_golden(GOLDEN / "deepseek_v3_bf16").model, tmp_path / "v3")
    for name in ("tokenizer.json", "tokenizer_config.json"):  # of the same vocabulary
        shutil.copy(llama.model / name, model)
    common = ("generate", model, "--prompt-ids", "5,6,7,8", "--max-tokens", 40, *GREEDY, *NEVER_END, "--json")
    answers = {how: json.loads(hadal.run(*common, "--draft", how).stdout) for how in ("off", "mtp", "auto")}
    assert answers["off"]["ids"] == answers["mtp"]["ids"] == answers["auto"]["ids"]
    assert answers["mtp"]["drafted"] > 0
