#!/usr/bin/env python3
"""What a constrained reply costs: tokens per second of eight replies together, free and held to a schema of 50 fields.

usage: bench/grammar.py [MODEL]   (default: the default model; needs a release build)
"""

import concurrent.futures
import json
import pathlib
import re
import statistics
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).parents[1]
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


def main():
    model = sys.argv[1] if len(sys.argv) > 1 else subprocess.check_output([ROOT / "script" / "model"], text=True).strip()
    for draft in ("off", "auto"):
        server = subprocess.Popen([ROOT / "build" / "release" / "hadal", "serve", model, "--port", "0", "--draft", draft], stdout=subprocess.PIPE, text=True)
        try:
            base = re.search(r"http://\S+:\d+", server.stdout.readline())[0]
            forms = {"free": {"logit_bias": {"2": -100}}, "50 fields": FORM}  # 2: SmolLM2's end, so that free replies are as long
            for form in forms.values():
                reply(base, 1, form)
            rates = {name: [] for name in forms}
            for round in range(ROUNDS):  # in turns, so that both see the same machine
                for name, form in forms.items():
                    rates[name].append(rate(base, form, round))
            free, held = (statistics.median(rates[name]) for name in forms)
            print(f"--draft {draft}: free {free:.0f} tokens/s, 50 fields {held:.0f} tokens/s ({100 * (held / free - 1):+.1f} %)")
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
