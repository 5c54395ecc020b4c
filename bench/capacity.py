#!/usr/bin/env python3
"""Requests per second and per core: measured on hadal's server, and computed for larger models from bench/results/hadal.json.

  script/build && bench/capacity.py            prints the tables
  bench/capacity.py --write                    puts them into docs/capacity.md; on an idle machine, some minutes
  bench/capacity.py --model path/to/model --weights w4 --clients 64

Each request is a prompt of its own, so that no cache of prefixes helps. Measured is from the first request to the last, `clients` at a time.
"""

import argparse
import concurrent.futures
import datetime
import http.client
import itertools
import json
import os
import pathlib
import re
import subprocess
import time

ROOT = pathlib.Path(__file__).parents[1]
BEGIN, END = "<!-- figures: bench/capacity.py --write -->", "<!-- end of figures -->"
SHAPES = [("classify", 128, 1), ("short chat", 128, 64), ("chat", 512, 128), ("read a page", 2000, 64)]  # name, tokens of prompt and reply
TARGET = 1200  # requests per second: the article's figure for V2, quantised, on a cluster of A100


def ask(port, ids, tokens):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    body = {
        "prompt": ids,
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }
    start = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body))
    reply = connection.getresponse()
    reply.readline()
    first = time.perf_counter() - start
    text = reply.read().decode()
    connection.close()
    usage = json.loads(re.findall(r"^data: (\{.*\"usage\":\{.*\})$", text, re.M)[-1])["usage"]
    return first, usage["completion_tokens"]


def measure(port, clients, count, prompt, reply):
    prompts = [[(i * 7919 + j * 31) % 40000 + 100 for j in range(prompt)] for i in range(count)]
    ask(port, prompts[0][: min(prompt, 64)], 1)
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as threads:
        answers = list(threads.map(lambda ids: ask(port, ids, reply), prompts))
    seconds = time.perf_counter() - start
    firsts = sorted(first for first, _ in answers)
    given = sum(tokens for _, tokens in answers)
    return {"requests": count / seconds, "prompt": count * prompt / seconds, "reply": given / seconds, "first": firsts[len(firsts) // 2]}


def measured(options):
    arguments = [
        ROOT / "build" / "release" / "hadal",
        "serve",
        options.model,
        "--port",
        "0",
        "--threads",
        options.threads,
        "--replies",
        "64",
    ]
    if options.weights:
        arguments += ["--weights", options.weights]
    server = subprocess.Popen(list(map(str, arguments)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = int(re.search(r"http://[\d.]+:(\d+)", server.stdout.readline())[1])
        for name, prompt, reply in SHAPES:
            count = max(options.clients, min(8 * options.clients, int(40000 / (prompt / 8 + reply))))
            yield name, prompt, reply, measure(port, options.clients, count, prompt, reply)
    finally:
        server.terminate()
        server.wait()


def rates_of(rows, shape):
    """Tokens per second of reading and of writing, the latter with as many together as was measured."""
    results = [row["result"] for row in rows if row["shape"] == shape and row["weights"] == "w4"]
    read = max((r["tokens_per_second"] for r in results if r["test"] == "prefill"), default=None)
    write = max(((r["tokens_per_second"], r["batch"]) for r in results if r["test"] == "decode" and r["depth"] == 0), default=None)
    return read, write


def computed():
    record = json.loads((ROOT / "bench" / "results" / "hadal.json").read_text())
    threads = record["machine"]["threads"]
    for shape in dict.fromkeys(row["shape"] for row in record["rows"]):
        read, write = rates_of(record["rows"], shape)
        if read and write:
            yield shape, threads, read, *write


def figure(number):
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}" if number >= 1 else f"{number:.2f}"


def measured_table(options):
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    cpu = re.search(r"model name\s*:\s*(.+)", pathlib.Path("/proc/cpuinfo").read_text())[1]
    what = f"{pathlib.Path(options.model).name}{f' {options.weights}' if options.weights else ''}, {options.clients} clients at a time, {options.threads} threads"
    yield f"Measured: {what}; {cpu}; {datetime.date.today()}, commit {commit}; load before: {options.load:.1f}."
    yield ""
    yield f"| request | tokens in + out | requests/s | per core | read tokens/s | written tokens/s | first token, median | cores for {TARGET:,} requests/s |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, prompt, reply, m in measured(options):
        core = m["requests"] / options.threads
        yield (
            f"| {name} | {prompt} + {reply} | {figure(m['requests'])} | {figure(core)} | {figure(m['prompt'])} | {figure(m['reply'])} | {m['first']:.2f} s "
            f"| {figure(TARGET / core)} |"
        )
    yield ""


def computed_table():
    yield "Computed from [bench/results/hadal.md](../bench/results/hadal.md): seconds of a request = prompt / read + reply / written, both for the whole machine; where replies were measured one at a time (1), a lower bound."
    yield ""
    yield f"| shape, w4 | read tokens/s | written tokens/s (together) | request | requests/s per core | cores for {TARGET:,} requests/s |"
    yield "|---|---|---|---|---|---|"
    for shape, threads, read, write, together in computed():
        for name, prompt, reply in SHAPES[1:3]:
            core = 1 / (prompt / read + reply / write) / threads
            yield f"| {shape} | {figure(read)} | {figure(write)} ({together}) | {name}, {prompt} + {reply} | {figure(core)} | {figure(TARGET / core)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--weights", help="of hadal serve")
    parser.add_argument("--clients", type=int, default=32, help="at a time")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--computed", action="store_true", help="only the second table, which measures nothing")
    parser.add_argument("--write", action="store_true", help="into docs/capacity.md, between the lines that mark them")
    options = parser.parse_args()
    options.load = os.getloadavg()[0]
    lines = []
    for line in itertools.chain([] if options.computed else measured_table(options), computed_table()):
        print(line, flush=True)
        lines.append(line)
    if options.write:
        page = ROOT / "docs" / "capacity.md"
        before, rest = page.read_text().split(BEGIN, 1)
        page.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + rest.split(END, 1)[1])


if __name__ == "__main__":
    main()
