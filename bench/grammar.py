#!/usr/bin/env python3
"""What a constrained reply costs, into bench/results/grammar.md: tokens per second of eight replies together, free and held to a schema of 50 fields.

  bench/grammar.py                             the default model; two minutes, after a release build
  bench/grammar.py --model PATH --out /tmp/try
"""

import argparse
import concurrent.futures
import json
import pathlib
import re
import statistics
import subprocess
import time
import urllib.request

from targets import ROOT, commit

TOKENS, TOGETHER, ROUNDS = 160, 8, 5
KINDS = [{"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {"enum": ["low", "middle", "high"]}, {"type": "array", "items": {"type": "number"}}]
SCHEMA = {"type": "object", "properties": {f"field_{i}": KINDS[i % len(KINDS)] for i in range(50)}}
SCHEMA["required"] = list(SCHEMA["properties"])
FORM = {"response_format": {"type": "json_schema", "json_schema": {"name": "fifty", "schema": SCHEMA}}}


def reply(base, seed, form):
    """Tokens behind the first, and the seconds they took."""
    body = {"messages": [{"role": "user", "content": "Invent a record with fifty fields."}], "max_tokens": TOKENS, "temperature": 0.8, "seed": seed,
            "stream": True, "stream_options": {"include_usage": True}} | form
    times, tokens = [], 0
    with urllib.request.urlopen(urllib.request.Request(base + "/v1/chat/completions", json.dumps(body).encode())) as stream:
        for line in stream:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            times.append(time.perf_counter())
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
    return tokens, times[1], times[-2]


def rate(base, form, round):
    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
        replies = list(pool.map(lambda i: reply(base, 100 * round + i, form), range(TOGETHER)))
    return sum(r[0] for r in replies) / (max(r[2] for r in replies) - min(r[1] for r in replies))


def measure(model, draft):
    """Tokens per second, free and constrained: medians of rounds in turns, so that both see the same machine."""
    arguments = [ROOT / "build/release/hadal", "serve", model, "--port", "0", "--draft", draft]
    server = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        base = re.search(r"http://\S+:\d+", server.stdout.readline())[0]
        forms = {"free": {"logit_bias": {"2": -100}}, "50 fields": FORM}  # 2: SmolLM2's end, so that free replies are as long
        for form in forms.values():
            reply(base, 1, form)
        rates = {name: [] for name in forms}
        for round in range(ROUNDS):
            for name, form in forms.items():
                rates[name].append(rate(base, form, round))
        return [statistics.median(rates[name]) for name in forms]
    finally:
        server.terminate()
        server.wait()


def markdown(model, machine, rows):
    lines = [
        "# Constrained replies",
        "",
        f"`bench/grammar.py` on {time.strftime('%Y-%m-%d')}, commit {commit()}, {machine}, model {model.name}. Tokens per second of {TOGETHER} replies together, of {TOKENS} tokens",
        f"each: free, and held to a JSON schema of 50 fields (strings, integers, booleans, choices, lists); the median of {ROUNDS} rounds in turns.",
        "",
        "| guessed tokens | free | 50 fields | difference |",
        "|---|---|---|---|",
    ]
    return "\n".join(lines + [f"| `--draft {draft}` | {free:.0f} | {held:.0f} | {100 * (held / free - 1):+.1f} % |" for draft, (free, held) in rows.items()]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, help="default: what script/model fetches")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/grammar", help="without .md")
    options = parser.parse_args()
    model = options.model or pathlib.Path(subprocess.check_output([ROOT / "script/model"], text=True).strip())
    machine = json.loads(subprocess.check_output([ROOT / "build/release/hadal", "doctor", "--json"]))["cpu"]
    rows = {}
    for draft in ("off", "auto"):
        rows[draft] = free, held = measure(model, draft)
        print(f"--draft {draft}: free {free:.0f} tokens/s, 50 fields {held:.0f} tokens/s ({100 * (held / free - 1):+.1f} %)")
    options.out.with_suffix(".md").write_text(markdown(model, machine, rows))


if __name__ == "__main__":
    main()
