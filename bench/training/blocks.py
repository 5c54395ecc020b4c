#!/usr/bin/env python3
"""Attention to the blocks that fit best, trained: what it finds ten thousand tokens back. bench/results/blocks.{json,md}.

  bench/training/blocks.py                           dense, block top-k, window; three seeds
  bench/training/blocks.py --seeds 1 --scale 0.3 --kinds blocks --out /tmp/try

Among 10,240 random digits stand 26 letters. The letter that all begins with is asked for at the end: which digit followed it?
A model of two layers learns it with 8 letters among 32 digits, then with all 26 on texts of 128 tokens. Then it goes on to 1,000, 3,500 and 10,240 with every layer under the same mask: all keys (dense), the 16 best
blocks of 64 (blocks: a tenth of 10,240 tokens), or as many tokens of a window (window). Marked by the engine (`hadal answers`), which chooses blocks by a sketch of their
keys, over test texts. A part that is in the folder is not made again.
"""

import argparse
import json
import pathlib
import shutil
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from commands import call
from targets import ROOT, commit

BLOCKS = 16
KINDS = {"dense": {}, "blocks": {"attention_topk_blocks": BLOCKS}, "window": {"attention_window": 64 * BLOCKS}}
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
types = ["{letters} {distance} 1"]
questions = {letters}
rows = {rows}
tokens = {tokens}
whole_rows = true

[batch]
length = {length}

[optimizer]
kind = "muon"
learning_rate = 1e-3
muon_rate = 0.01

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
# So many letters in texts of so many tokens; a batch of so many rows, each with what the questions and answers take behind the text.
LESSONS = {
    "first": {"letters": 8, "distance": 32, "length": 80, "rows": 64, "steps": 500},
    "short": {"letters": 26, "distance": 128, "length": 384, "rows": 16, "steps": 400},
    "near": {"letters": 26, "distance": 1000, "length": 1280, "rows": 8, "steps": 300},
    "further": {"letters": 26, "distance": 3500, "length": 3840, "rows": 3, "steps": 100},
    "far": {"letters": 26, "distance": 10_240, "length": 10_624, "rows": 1, "steps": 200},
}


def train(options, name, seed, model, lesson):
    output, file = options.folder / name, options.folder / f"{name}.toml"
    if not (output / "model/config.json").exists():
        steps = max(1, round(lesson["steps"] * options.scale))
        settings = lesson | {"root": ROOT, "output": output, "seed": seed, "model": model, "steps": steps}
        file.write_text(RUN.format(**settings, tokens=lesson["rows"] * lesson["length"] * steps + lesson["length"]))
        call(options.train, "train", file, "--json")
    return output / "model"


def recall(options, model, lesson):
    """The share of answers that are right."""
    task = f"{lesson['letters']} {lesson['distance']} 1"
    marks = call(options.hadal, "answers", model, "--source", "recall", "--split", "test", "--types", task, "--questions", options.questions,
                 "--batch", 8, "--json")  # fmt: skip
    return marks["all"]["exact"]


def masked(model, kind, folder):
    """The same weights, every layer under the mask."""
    shutil.copytree(model, folder, dirs_exist_ok=True)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | KINDS[kind], indent=2) + "\n")
    return folder


def learn(options, kind, seed, name, model):
    """A lesson, and what is right at its distance."""
    learnt = train(options, f"{kind}-{seed}-{name}", seed, model, LESSONS[name])
    marks = learnt.parent / "right.json"
    if not marks.exists():
        marks.write_text(json.dumps(recall(options, learnt, LESSONS[name])))
    right = json.loads(marks.read_text())
    print(f"{kind}, seed {seed}, {name}: {right}", file=sys.stderr, flush=True)
    return learnt, right


def run(options, seed):
    """A row of each kind; the first two lessons, shorter than every mask, are one for all."""
    begun, _ = learn(options, "all", seed, "first", MODEL)
    begun, short = learn(options, "all", seed, "short", f'from = "{begun}"')
    for kind in options.kinds:
        row, model = {"kind": kind, "seed": seed, "short": short}, masked(begun, kind, options.folder / f"{kind}-{seed}")
        for name in ("near", "further", "far"):
            model, row[name] = learn(options, kind, seed, name, f'from = "{model}"')
        yield row


def markdown(record):
    percent = lambda share: f"{100 * share:.1f} %"  # noqa: E731
    lines = ["# Block top-k attention, trained", "", f"`bench/training/blocks.py` on {record['date']}, commit {record['commit']}. What the figures are: `--help`.", ""]
    lines += ["| attention | seed | right at 128 | right at 1,000 | right at 3,500 | right at 10,240 |", "|---|---|---|---|---|---|"]
    for row in record["runs"]:
        shares = (percent(row[name]) for name in ("short", "near", "further", "far"))
        lines.append(f"| {row['kind']} | {row['seed']} | {' | '.join(shares)} |")
    mean = {kind: [row["far"] for row in record["runs"] if row["kind"] == kind] for kind in KINDS}
    if mean["dense"] and mean["blocks"] and sum(mean["dense"]) > 0:
        share = (sum(mean["blocks"]) / len(mean["blocks"])) / (sum(mean["dense"]) / len(mean["dense"]))
        lines += ["", f"{BLOCKS} of 160 blocks keep {percent(share)} of the answers that dense attention gets right at 10,240 tokens."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1, help="of all steps")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--hadal", type=pathlib.Path, default=ROOT / "build/release/hadal")
    parser.add_argument("--train", type=pathlib.Path, default=ROOT / "build/release/hadal-train")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "runs/blocks", help="where all of it is kept")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/blocks", help="without .md and .json")
    options = parser.parse_args()
    record = {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "runs": []}
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    for seed in range(1, options.seeds + 1):
        for row in run(options, seed):
            record["runs"].append(row)
            options.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
            options.out.with_suffix(".md").write_text(markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
