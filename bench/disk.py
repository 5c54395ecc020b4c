#!/usr/bin/env python3
"""Mixtures of experts larger than their memory: packed here, predicted by `hadal info --memory`, then run; into bench/results/disk.md.

  bench/disk.py --folder DIR                    both models; DIR needs 35 GB, each model is removed when it was measured
  bench/disk.py --folder DIR --only article-v2 --out /tmp/try
  bench/disk.py --folder DIR --keep             the packed models stay, and those that are there are used

Random weights, so experts are asked for nearly alike: there are few hot ones to keep.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import time

from targets import ROOT, call, commit, wait_for_idle

ROWS = [("article-v2", "w4", "5.7GB", 200), ("article-v3", "w2", "14.3GB", 48)]  # shape, weights, memory, tokens of a reply
CONTEXT = 4096


def ask(program, *arguments):
    done = subprocess.run([program, *map(str, arguments), "--json"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def measure(options, shape, weights, memory, tokens):
    folder = options.folder / f"{shape}-{weights}"
    ask(options.hadal, "quantize", "--preset", shape, folder, "--weights", weights)
    wait_for_idle(options.patience)
    before = ask(options.hadal, "info", folder, "--memory", memory, "--context", CONTEXT)
    depth = CONTEXT // 2 - tokens // 2  # the prediction is of a token behind half the context
    bench = ["bench", folder, "--memory", memory, "--prompt", 0, "--generate", tokens, "--depth", depth, "--repeat", 2, "--threads", options.threads, "--json"]
    text, held, problem = call(options.hadal, bench)
    if text is None:
        sys.exit(f"{shape}: {problem}")
    after = ask(options.hadal, "info", folder, "--memory", memory, "--context", CONTEXT)
    if not options.keep:
        shutil.rmtree(folder)
    answer = json.loads(text)
    return answer["machine"], {
        "shape": shape, "weights": weights, "memory": memory, "file": before["stored"]["bytes"], "held": held,
        "experts_of_a_token": before["parts"]["experts"]["bytes"] * before["active_experts"] / before["experts"],
        "within": [before["within"], after["within"]], "result": answer["results"][0], "spread": answer["spread"][0],
    }  # fmt: skip


def markdown(record):
    m = record["machine"]
    lines = [
        "# Experts from disk",
        "",
        f"`{record['command']}` on {record['date']}, commit {record['commit']}. {m['cpu']}, {m['threads']} threads, {m['isa']}. Decode of one reply behind about 2,000 tokens; random weights, so",
        "every expert is asked for alike. Predicted: by `hadal info --memory` before and after the run, as the disk's speed moves. Disk alone: its measured speed",
        "divided by the bytes of the experts that are not in memory. Held: the most the process had resident.",
        "",
        "| model | file | memory allowed | held | experts found in memory | disk | predicted, tokens/s | measured | disk alone |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        within = row["within"]
        both = lambda key, scale=1, digits=1: ", ".join(f"{w[key] / scale:.{digits}f}" for w in within)  # noqa: E731
        missed = row["experts_of_a_token"] * (1 - within[0]["hit_rate"])
        alone = ", ".join(f"{w['disk_bytes_per_second'] / missed:.1f}" for w in within)
        lines.append(
            f"| {row['shape']}, {row['weights']} | {row['file'] / 1e9:.1f} GB | {row['memory'].replace('GB', ' GB')} | {row['held'] / 1e9:.2f} GB | "
            f"{100 * within[0]['hit_rate']:.0f} % | {both('disk_bytes_per_second', 1e9, 2)} GB/s | {both('tokens_per_second')} | "
            f"{row['result']['tokens_per_second']:.1f} (spread {100 * row['spread']:.0f} %) | {alone} |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="for the packed models")
    parser.add_argument("--only", default="", help="the models whose name begins so; the record keeps the others")
    parser.add_argument("--keep", action="store_true", help="do not remove the packed models")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for an idle machine before each measurement")
    parser.add_argument("--hadal", type=pathlib.Path, default=ROOT / "build/release/hadal")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/disk", help="without .md and .json")
    options = parser.parse_args()
    path = options.out.with_suffix(".json")
    rows = {row["shape"]: row for row in json.loads(path.read_text())["rows"]} if options.only and path.exists() else {}
    record = {"command": "bench/disk.py --folder DIR", "date": time.strftime("%Y-%m-%d"), "commit": commit()}
    for shape, weights, memory, tokens in ROWS:
        if not shape.startswith(options.only):
            continue
        record["machine"], rows[shape] = measure(options, shape, weights, memory, tokens)
        row = rows[shape]
        predicted = ", ".join(f"{w['tokens_per_second']:.1f}" for w in row["within"])
        print(f"{shape} {weights} within {memory}: {row['result']['tokens_per_second']:.1f} tokens/s, predicted {predicted}", file=sys.stderr, flush=True)
    record["rows"] = list(rows.values())
    path.write_text(json.dumps(record, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(markdown(record))


if __name__ == "__main__":
    main()
