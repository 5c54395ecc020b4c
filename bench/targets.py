#!/usr/bin/env python3
"""hadal's own figures on the published shapes, into bench/results/hadal.md and .json. Started by `script/bench targets`.

  bench/targets.py                          all rows, about ten minutes on two cores
  bench/targets.py --only v2-lite           the rows of one shape
  bench/targets.py --out /tmp/try --patience 0

Each row is one `hadal bench` in a process of its own, on a machine that was idle for a second before, or the row is marked.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "bench" / "peers"))
from idle import wait_for_idle  # noqa: E402

# shape, weights, cache, lengths of prompts, (depths, batches, tokens of a reply)
ROWS = [
    ("coder-1.3b", "w4", "i8", [512, 2048], []),
    ("coder-1.3b", "w4", "i8", [], [([0, 4096, 8192, 16384], [1], 32), ([0], [8, 32], 32)]),
    ("coder-1.3b", "bf16", "f16", [512], [([0], [1], 16)]),
    ("v2-lite", "w4", "i8", [2048], [([0, 16384], [1], 32)]),
    ("article-v1", "w4", "i8", [], [([0], [1], 32)]),
    ("article-v2", "w4", "i8", [512], [([0], [1], 32)]),
]


def commands():
    for shape, weights, cache, prompts, decodes in ROWS:
        common = ["--preset", shape, "--weights", weights, "--cache", cache]
        for prompt in prompts:
            yield shape, weights, cache, [*common, "--prompt", prompt, "--generate", 0]
        for depths, batches, tokens in decodes:
            for depth in depths:
                for batch in batches:
                    yield shape, weights, cache, [*common, "--prompt", 0, "--generate", tokens, "--depth", depth, "--batch", batch]


def call(program, arguments):
    """Standard output and the most memory held, or what went wrong."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as problem:
        process = subprocess.Popen([program, *map(str, arguments)], stdout=out, stderr=problem)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), problem.seek(0)
        if status != 0:
            lines = [line for line in problem.read().decode().splitlines() if line.startswith("hadal: error: ")]
            return None, 0, (lines or [f"it ended with {process.returncode}"])[0]
        return out.read().decode(), usage.ru_maxrss * 1024, ""


def name_of(result):
    if result["test"] == "prefill":
        return f"prefill {result['tokens']}"
    return f"decode behind {result['depth']}" + (f", {result['batch']} together" if result["batch"] > 1 else "")


def markdown(record):
    m = record["machine"]
    lines = [
        "# hadal on the published shapes",
        "",
        f"`script/bench targets` on {record['date']}, commit {record['commit']}. {m.get('cpu')}, {m.get('threads')} threads, {m.get('isa')}; measured: "
        f"reads {m.get('read_bandwidth', 0) / 1e9:.1f} GB/s, {m.get('peak_flops', 0) / 1e9:.0f} GFLOPS in f32, {m.get('peak_ops', 0) / 1e9:.0f} GOPS in int8. Random weights; the fastest of the",
        "repetitions, spread: how much longer the slowest took; limit: what bandwidth and arithmetic of this machine allow; memory: the most the process held.",
        "*: the machine was not idle.",
        "",
        "| shape | weights, cache | figure | tokens/s | ms per token | spread | limit | share | memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        r = row["result"]
        each = 1000 * r["batch"] / r["tokens_per_second"] if r["test"] == "decode" else 0
        lines.append(
            f"| {row['shape']} | {row['weights']}, {row['cache']} | {name_of(r)}{'' if row['idle'] else ' *'} | {r['tokens_per_second']:.1f} | "
            f"{f'{each:.1f}' if each else ''} | {100 * row['spread']:.0f} % | {r['limit']:.1f} | {100 * r['share']:.0f} % | {row['memory'] / 1e9:.2f} GB |"
        )
    if record["trouble"]:
        lines += ["", "What did not run:", ""] + [f"- {line}" for line in record["trouble"]]
    return "\n".join(lines) + "\n"


def commit():
    git = lambda *a: subprocess.run(["git", "-C", ROOT, *a], capture_output=True, text=True).stdout.strip()  # noqa: E731
    return git("rev-parse", "--short", "HEAD") + (" and changes" if git("status", "--porcelain", "--untracked-files=no", "--", ":!bench/results") else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="the rows whose shape begins so")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for an idle machine before each row")
    parser.add_argument("--hadal", type=pathlib.Path, default=ROOT / "build/release/hadal")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/hadal", help="without .md and .json")
    options = parser.parse_args()
    record = {"command": "script/bench targets", "date": time.strftime("%Y-%m-%d"), "commit": commit(), "machine": {}, "rows": [], "trouble": []}
    for shape, weights, cache, arguments in commands():
        if not shape.startswith(options.only):
            continue
        idle = wait_for_idle(options.patience)
        start = time.monotonic()
        text, memory, problem = call(options.hadal, ["bench", *arguments, "--threads", options.threads, "--json"])
        line = f"{shape} {weights} {' '.join(map(str, arguments[6:]))}"
        if text is None:
            record["trouble"].append(f"{line}: {problem}")
            print(f"{line}: {problem}", file=sys.stderr, flush=True)
            continue
        answer = json.loads(text)
        record["machine"] = answer["machine"]
        result = answer["results"][0]
        row = {"shape": shape, "weights": weights, "cache": cache, "idle": idle, "memory": memory}
        record["rows"].append(row | {"spread": answer["spread"][0], "result": result})
        shown = f"{result['tokens_per_second']:.1f} tokens/s, {100 * result['share']:.0f} % of the limit"
        print(f"{line}: {shown}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    pathlib.Path(f"{options.out}.json").write_text(json.dumps(record, indent=1) + "\n")
    pathlib.Path(f"{options.out}.md").write_text(markdown(record))


if __name__ == "__main__":
    main()
