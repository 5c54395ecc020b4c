#!/usr/bin/env python3
"""What LoRA adapters cost a server, into bench/results/adapters.md: eight replies with none, one and eight adapters, and swaps while a reply runs.

  .venv/bin/python bench/adapters.py                the default model in w8, about three minutes
  .venv/bin/python bench/adapters.py --rank 64 --swaps 200 --out /tmp/try

The adapters are random, of every linear layer. A swap loads a name again, from other files; they come at a fixed pace while one reply is read, and
what is measured is the time between its tokens: of all, and the longest while a swap was asked for and answered.
"""

import argparse
import concurrent.futures
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from serve import Server, completion, free_port, machine, post
from targets import ROOT, commit, wait_for_idle

sys.path.insert(0, str(ROOT / "tests/python"))
import adapters  # noqa: E402

DIM, HEAD, HEADS, KV_HEADS, FFN, LAYERS = 576, 64, 9, 3, 1536, 30  # the default model
TOGETHER, TOKENS, ROUNDS = 8, 64, 5


def linear_layers():
    shapes = {"q": (HEADS * HEAD, DIM), "k": (KV_HEADS * HEAD, DIM), "v": (KV_HEADS * HEAD, DIM), "o": (DIM, HEADS * HEAD)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        yield from ((f"{at}self_attn.{part}_proj", shape) for part, shape in shapes.items())
        yield from ((f"{at}mlp.{part}_proj", shape) for part, shape in (("gate", (FFN, DIM)), ("up", (FFN, DIM)), ("down", (DIM, FFN))))


def together(url, models):
    """Tokens per second of as many replies as there are names."""

    def ask(i):
        prompt = f"Item {i} of a long list. Once upon a time in a town with {i + 3} bridges, there lived"
        with post(url, "/v1/completions", completion(prompt, TOKENS) | {"model": models[i]}) as reply:
            return json.loads(reply.read())["usage"]["completion_tokens"]

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(len(models)) as threads:
        given = sum(threads.map(ask, range(len(models))))
    return given / (time.perf_counter() - start)


def read_replies(url, over):
    """Seconds between the tokens of one reply after another, until `over` is set."""
    gaps, body = [], completion("Once upon a time", 1500, stream=True, logprobs=0, temperature=1.3, seed=1) | {"model": "moving"}  # nothing to guess
    while not over.is_set():
        last = None
        with post(url, "/v1/completions", body) as reply:
            for line in reply:
                now = time.perf_counter()
                if line.startswith(b"data: {") and json.loads(line[6:])["choices"]:
                    gaps += [now - last] if last else []
                    last = now
    return sorted(gaps)


def swap(url, folder, count, pace):
    """Seconds until each was answered."""
    took, due = [], time.perf_counter()
    for i in range(count):
        time.sleep(max(0, due - time.perf_counter()))
        due += pace
        start = time.perf_counter()
        with post(url, "/v1/load_lora_adapter", {"lora_name": "moving", "lora_path": str(folder / f"a{i % 2}")}) as reply:
            reply.read()
        took.append(time.perf_counter() - start)
    return sorted(took)


def under_swaps(url, folder, count, pace):
    found = {}
    for name in ("without", "with"):
        over = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            reading = thread.submit(read_replies, url, over)
            time.sleep(1)
            if name == "with":
                took = swap(url, folder, count, pace)
                found["answered"] = {"median": statistics.median(took), "longest": took[-1]}
            else:
                time.sleep(count * pace)
            over.set()
            gaps = reading.result()
        at = lambda share: gaps[min(len(gaps) - 1, int(len(gaps) * share))]  # noqa: E731
        found[name] = {"gaps": len(gaps), "median": at(0.5), "p99": at(0.99), "p999": at(0.999), "longest": gaps[-1]}
    return found


def markdown(record):
    ms = lambda seconds: f"{1000 * seconds:.2f}"  # noqa: E731
    swaps, rates = record["under_swaps"], record["tokens_per_second"]
    lines = [
        "# Adapters",
        "",
        f"`bench/adapters.py` on {record['date']}, commit {record['commit']}, {record['machine']}. SmolLM2-135M, w8, random adapters of rank {record['rank']} of every linear layer",
        f"({record['bytes'] / 1e6:.1f} MB each). Tokens per second of {TOGETHER} replies of {TOKENS} tokens together, the median of {ROUNDS} rounds:",
        "",
        "| adapters | tokens/s | cost |",
        "|---|---|---|",
    ]
    for name, rate in rates.items():
        cost = "" if name == "none" else f"{100 * (1 - rate / rates['none']):.0f} %"
        lines.append(f"| {name} | {rate:.0f} | {cost} |")
    lines += [
        "",
        f"{record['swaps']} swaps, one every {1000 * record['pace']:.0f} ms, while replies are read one after another; milliseconds between their tokens. A swap was answered in "
        f"{ms(swaps['answered']['median'])} ms (median; the slowest in {ms(swaps['answered']['longest'])}).",
        "",
        "| | tokens | median | 99 % | 99.9 % | longest |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("without", "with"):
        s = swaps[name]
        lines.append(f"| {name} swaps | {s['gaps']} | {ms(s['median'])} | {ms(s['p99'])} | {ms(s['p999'])} | {ms(s['longest'])} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--pace", type=float, default=0.06, help="seconds from one swap to the next")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for an idle machine")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/adapters", help="without .md")
    options = parser.parse_args()
    model = subprocess.run([ROOT / "script/model"], capture_output=True, text=True, check=True).stdout.strip()
    record = {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "machine": machine(), "rank": options.rank, "swaps": options.swaps, "pace": options.pace}
    with tempfile.TemporaryDirectory() as name, tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        folder = pathlib.Path(name)
        for i in range(TOGETHER):
            adapters.write(folder / f"a{i}", adapters.draw(dict(linear_layers()), i, options.rank, 0.1))
        record["bytes"] = (folder / "a0/adapter_model.safetensors").stat().st_size
        port = free_port()
        arguments = [ROOT / "build/release/hadal", "serve", model, "--port", port, "--name", "base", "--weights", "w8", "--adapter-folder", folder]
        for i in range(TOGETHER):
            arguments += ["--adapter", f"a{i}={folder / f'a{i}'}"]
        chosen = {"none": ["base"] * TOGETHER, "one": ["a0"] * TOGETHER, "eight": [f"a{i}" for i in range(TOGETHER)]}
        with Server([*arguments, "--adapter", f"moving={folder / 'a0'}"], port, log) as server:
            wait_for_idle(options.patience)
            rates = {name: [] for name in chosen}
            for _ in range(ROUNDS):  # in turns, so that all see the same machine
                for name, models in chosen.items():
                    rates[name].append(together(server.url, models))
            record["tokens_per_second"] = {name: statistics.median(of) for name, of in rates.items()}
            print(json.dumps(record["tokens_per_second"]), file=sys.stderr, flush=True)
            record["under_swaps"] = under_swaps(server.url, folder, options.swaps, options.pace)
            print(json.dumps(record["under_swaps"]), file=sys.stderr, flush=True)
    options.out.with_suffix(".md").write_text(markdown(record))


if __name__ == "__main__":
    main()
