#!/usr/bin/env python3
"""What packing costs a real model, into bench/results/quality.md: SmolLM2-135M, as its GGUF file stores it, beside packed copies of itself.

  bench/quality.py                                 this project's own pages, some minutes
  bench/quality.py --text text.txt --windows 64    another text
  bench/quality.py --model PATH --out /tmp/try

Each row is one `hadal perplexity --reference`: both read the same windows of 512 tokens, and for each prediction the two distributions are compared.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from targets import ROOT, commit

KEEP = lambda *parts: [word for part in parts for word in ("--keep", f"*{part}*=w8")]  # noqa: E731
# weights, what is kept in w8 besides what always is, cache
ROWS = [
    ("w8", "", [], "f16"),
    ("w8", "", [], "i8"),
    ("w4", "", [], "f16"),
    ("w4", "attention", KEEP("self_attn"), "f16"),
    ("w4", "down_proj", KEEP("down_proj"), "f16"),
    ("w4", "attention, down_proj", KEEP("self_attn", "down_proj"), "f16"),
    ("w4", "attention, down_proj, first and last two layers", KEEP("self_attn", "down_proj", "layers.0.", "layers.1.", "layers.28.", "layers.29."), "f16"),
]


def own_pages():
    return "\n".join(path.read_text() for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]))


def markdown(record):
    lines = [
        "# What packing costs",
        "",
        f"`{record['command']}` on {record['date']}, commit {record['commit']}, {record['machine']}. {record['model']} beside itself as it is stored (16-bit cache),",
        f"{record['text']}, {record['windows']} windows of 512 tokens, the second half of each scored. Divergence: sum of p ln(p / q), mean and the largest 1 %; same: how often",
        "both name the same token as the likeliest. Round to nearest, as `hadal quantize` does it; w4 keeps embedding, head and few key and value heads in w8 (docs/formats.md).",
        "",
        "| weights | also in w8 | cache | perplexity | reference | difference | divergence | 99 % below | same |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        lines.append(
            f"| {row['weights']} | {row['kept']} | {row['cache']} | {row['perplexity']:.4f} | {row['reference']:.4f} | {100 * (row['perplexity'] / row['reference'] - 1):+.2f} % | "
            f"{row['divergence']:.4f} | {row['divergence_99']:.3f} | {100 * row['same']:.1f} % |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: what script/model fetches")
    parser.add_argument("--text", type=pathlib.Path, help="a file; default: README, CONTRIBUTING, CHANGELOG and docs of this project")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--hadal", type=pathlib.Path, default=ROOT / "build/release/hadal")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/quality", help="without .md")
    options = parser.parse_args()
    options.model = options.model or subprocess.run([ROOT / "script/model"], capture_output=True, text=True, check=True).stdout.strip()
    machine = json.loads(subprocess.run([options.hadal, "doctor", "--json"], capture_output=True, text=True, check=True).stdout)["cpu"]
    record = {"command": "bench/quality.py", "date": time.strftime("%Y-%m-%d"), "commit": commit(), "machine": machine, "rows": []}
    record |= {"model": pathlib.Path(options.model).name, "text": options.text.name if options.text else "this project's own pages"}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as text:
        text.write(options.text.read_text() if options.text else own_pages())
        text.flush()
        for weights, kept, keep, cache in ROWS:
            arguments = [options.model, "--weights", weights, *keep, "--cache", cache, "--reference", options.model, "--reference-cache", "f16"]
            arguments += ["--file", text.name, "--max-windows", options.windows, "--json"]
            done = json.loads(subprocess.run([options.hadal, "perplexity", *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True).stdout)
            record["windows"] = done["model"]["windows"]
            record["rows"].append(
                {
                    "weights": weights, "kept": kept, "cache": cache, "perplexity": done["model"]["perplexity"],
                    "reference": done["reference"]["perplexity"], "divergence": done["mean_kl"], "divergence_99": done["kl_99"], "same": done["same_top"],
                }  # fmt: skip
            )
            print(f"{weights} {kept} {cache}: {100 * done['change']:+.2f} %, divergence {done['mean_kl']:.4f}", file=sys.stderr, flush=True)
    options.out.with_suffix(".md").write_text(markdown(record))


if __name__ == "__main__":
    main()
