#!/usr/bin/env python3
"""Attention to the blocks that fit best, trained: what it finds ten thousand tokens back. bench/results/blocks.{json,md}.

  bench/training/blocks.py                           dense, block top-k, window; three seeds
  bench/training/blocks.py --seeds 1 --scale 0.3 --kinds blocks --out /tmp/try

Among 10,240 random digits stand 26 letters with three digits behind each. The letter that all begins with is asked for at the end: which digits followed it?
A model of two layers learns it on texts of 128 tokens, then of 1,000 and 3,500, then on some of 10,240, every layer under the same mask: all keys (dense), the 16 best blocks
of 64 (blocks: a quarter of 4,096 tokens, a tenth of 10,240), or as many tokens of a window (window). Marked by the engine (`hadal answers`), which chooses blocks by
a sketch of their keys, over test texts.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from commands import call
from targets import ROOT, commit

BLOCKS = 16
KINDS = {"dense": "", "blocks": f"attention_topk_blocks = {BLOCKS}", "window": f"attention_window = {64 * BLOCKS}"}
LETTERS, DIGITS, FAR = 26, 3, 10_240
MODEL = """model_type = "llama"
hidden_size = 128
intermediate_size = 256
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 4
max_position_embeddings = 16384
rope_theta = 1e9
tie_word_embeddings = true
"""
RUN = """output = "{output}"
tokenizer = "{root}/models/tokenizer"
seed = {seed}

[model]
{model}

[[data]]
kind = "recall"
types = ["{letters} {distance} {digits}"]
questions = {letters}
rows = {rows}
tokens = {tokens}
whole_rows = true

[batch]
length = {length}
micro_rows = {micro_rows}

[optimizer]
kind = "muon"
learning_rate = {rate}
muon_rate = {muon_rate}

[schedule]
shape = "trapezoid"
steps = {steps}
warmup = 20
cooldown = 0.4
floor = 0.02

[save]
every = 100000
type = "f32"
"""
# Texts of so many tokens; a batch of so many rows, each with what 26 questions and answers take behind the text.
LESSONS = {
    "short": {"distance": 128, "length": 384, "rows": 32, "micro_rows": 32, "rate": 1e-3, "muon_rate": 0.01, "steps": 400},
    "near": {"distance": 1000, "length": 1280, "rows": 8, "micro_rows": 8, "rate": 1e-3, "muon_rate": 0.01, "steps": 300},
    "further": {"distance": 3500, "length": 3840, "rows": 3, "micro_rows": 3, "rate": 1e-3, "muon_rate": 0.01, "steps": 100},
    "far": {"distance": FAR, "length": 10_752, "rows": 2, "micro_rows": 1, "rate": 5e-4, "muon_rate": 0.005, "steps": 40},
}


def train(options, folder, name, seed, model, lesson):
    output, file = folder / name, folder / f"{name}.toml"
    steps = max(1, round(lesson["steps"] * options.scale))
    settings = lesson | {"root": ROOT, "output": output, "seed": seed, "model": model, "letters": LETTERS, "digits": DIGITS, "steps": steps}
    file.write_text(RUN.format(**settings, tokens=lesson["rows"] * lesson["length"] * steps + lesson["length"]))
    return call(options.train, "train", file, "--json") | {"model": output / "model"}


def recall(options, model, distance, folder):
    """Shares of answers, and of their digits, that are right."""
    out = folder / "answers.jsonl"
    marks = call(options.hadal, "answers", model, "--source", "recall", "--split", "test", "--types", f"{LETTERS} {distance} {DIGITS}", "--questions",
                 options.questions, "--batch", 8, "--out", out, "--json")  # fmt: skip
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    digits = [a == b for line in lines for a, b in zip(line["expected"], line["answer"].ljust(DIGITS))]
    return {"exact": marks["all"]["exact"], "digits": sum(digits) / len(digits)}


def run(options, folder, kind, seed):
    row = {"kind": kind, "seed": seed, "seconds": 0, "tokens": 0}
    model = MODEL + KINDS[kind]
    for name, lesson in LESSONS.items():
        done = train(options, folder, f"{kind}-{seed}-{name}", seed, model, lesson)
        model = f'from = "{done["model"]}"'
        row |= {name: recall(options, done["model"], lesson["distance"], folder), "seconds": row["seconds"] + done["seconds"], "tokens": row["tokens"] + done["tokens"]}
        print(f"{kind}, seed {seed}, {name}: {row[name]}, loss {done['loss']:.4f}", file=sys.stderr, flush=True)
    return row


def markdown(record):
    percent = lambda share: f"{100 * share:.1f} %"  # noqa: E731
    lines = ["# Block top-k attention, trained", "", f"`bench/training/blocks.py` on {record['date']}, commit {record['commit']}. What the figures are: `--help`.", ""]
    lines += ["| attention | seed | right at 128 | right at 1,000 | right at 10,240 | digits | training tokens | seconds |", "|---|---|---|---|---|---|---|---|"]
    for row in record["runs"]:
        lines.append(
            f"| {row['kind']} | {row['seed']} | {percent(row['short']['exact'])} | {percent(row['near']['exact'])} | {percent(row['far']['exact'])} | {percent(row['far']['digits'])} | "
            f"{row['tokens']:,} | {row['seconds']:.0f} |"
        )
    mean = {kind: [row["far"]["exact"] for row in record["runs"] if row["kind"] == kind] for kind in KINDS}
    if mean["dense"] and mean["blocks"] and sum(mean["dense"]) > 0:
        share = (sum(mean["blocks"]) / len(mean["blocks"])) / (sum(mean["dense"]) / len(mean["dense"]))
        lines += ["", f"{BLOCKS} of 160 blocks keep {percent(share)} of the answers that dense attention gets right at 10,240 tokens."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1, help="of all steps")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--hadal", type=pathlib.Path, default=ROOT / "build/release/hadal")
    parser.add_argument("--train", type=pathlib.Path, default=ROOT / "build/release/hadal-train")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/blocks", help="without .md and .json")
    options = parser.parse_args()
    record = {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "runs": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, options.seeds + 1):
            for kind in options.kinds:
                record["runs"].append(run(options, pathlib.Path(folder), kind, seed))
                options.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
                options.out.with_suffix(".md").write_text(markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
