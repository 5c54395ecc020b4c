#!/usr/bin/env python3
"""What segments that remember are worth: bench/results/recurrence.{json,md}.

  bench/training/recurrence.py                         recall over four segments, three seeds, with a memory and without; then a stream of 100,000 tokens
  bench/training/recurrence.py --seeds 1 --steps 500 --only recall --out /tmp/try

recall  A letter and eight digits, 64 tokens behind it the letter again: what followed it? Rows are read in segments of 16 tokens, so the answer lies four
        segments back; the memory holds keys and values of the last 80. Marked by the engine (`hadal answers`), which keeps a rolling cache; without a
        memory it sees 16 tokens, as in training. A digit is guessed right once in ten times.
stream  nano-v1, window 256, reads 100,000 tokens of text that no training has seen in one go. Its loss on the last 20,000 beside that of a model that begins
        there, and the memory that both took.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from commands import call
from targets import ROOT, commit

RUN = """output = "{output}"
tokenizer = "{root}/models/tokenizer"
seed = {seed}

[model]
model_type = "llama"
hidden_size = 128
intermediate_size = 384
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 4
max_position_embeddings = 4096
rope_theta = 10000.0
tie_word_embeddings = true
attention_window = {window}

[[data]]
kind = "recall"
types = ["{task}"]
rows = {rows}
tokens = {tokens}
whole_rows = true

[batch]
length = {length}
segments = {segments}
memory = {memory}

[optimizer]
kind = "muon"
learning_rate = 1e-3
muon_rate = 0.01

[schedule]
shape = "trapezoid"
steps = {steps}
warmup = 50
cooldown = 0.3
floor = 0.02

[save]
every = 100000
type = "f32"
"""
TASK = "1 64"
SEGMENT, SEGMENTS, MEMORY, ROWS = 16, 5, 80, 128


def recall(options, folder, seed, remembers):
    """Shares of answers and of their digits that are right."""
    name = f"{'memory' if remembers else 'none'}-{seed}"
    file, output = folder / f"{name}.toml", folder / name
    settings = {"root": ROOT, "output": output, "length": SEGMENT, "seed": seed, "task": TASK, "rows": ROWS, "tokens": ROWS * SEGMENT * options.steps, "steps": options.steps}
    settings |= {"segments": SEGMENTS, "memory": MEMORY, "window": MEMORY + 1} if remembers else {"segments": SEGMENTS, "memory": 0, "window": SEGMENT}
    file.write_text(RUN.format(**settings))
    trained = call(options.train, "train", file, "--json")
    answers = folder / f"{name}.jsonl"
    marks = call(options.hadal, "answers", output / "model", "--source", "recall", "--split", "test", "--types", TASK, "--questions", 1000, "--out", answers, "--json")
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    digits = [a == b for line in lines for a, b in zip(line["expected"], line["answer"].ljust(len(line["expected"])))]
    return {"seed": seed, "memory": remembers, "exact": marks["all"]["exact"], "digits": statistics.mean(digits), "loss": trained["loss"], "seconds": trained["seconds"],
            "tokens": trained["tokens"]}  # fmt: skip


MEASURED = """import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, check=True)
print(json.dumps(json.loads(done.stdout) | {"resident": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}))"""


def stream(options, folder):
    """The loss on the last fifth, read behind all the rest and read on its own; and the most memory of both."""
    part, parts = 20_000, 5
    texts = subprocess.run([ROOT / "build/release/dump_data", "examples", "world_text", "worlds", "2000"], capture_output=True, check=True).stdout.split(b"\0")
    (folder / "stream.txt").write_bytes(b"\n".join(texts))

    def read(context, windows, read_only):
        found = call(sys.executable, "-c", MEASURED, options.hadal, "perplexity", options.model, "-f", folder / "stream.txt", "--context", context,
                     "--max-windows", windows, "--read-only", read_only, "--json")  # fmt: skip
        return found["mean_nll"] * found["scored"], found["scored"], found["resident"]

    begin = part * (parts - 1)
    behind = read(part * parts, 1, begin + 1000)
    alone, others = read(part, parts, 1000), read(part, parts - 1, 1000)
    return {
        "tokens": part * parts,
        "behind": behind[0] / behind[1],
        "alone": (alone[0] - others[0]) / (alone[1] - others[1]),
        "resident": behind[2],
        "resident_alone": alone[2],
    }


def markdown(record):
    lines = ["# Recurrence over segments", "", f"`bench/training/recurrence.py` on {record['date']}, commit {record['commit']}. What the figures are: `--help`.", ""]
    lines += ["| memory | seed | answers right | digits right | training tokens | seconds |", "|---|---|---|---|---|---|"]
    for row in record["recall"]:
        lines.append(
            f"| {'80 tokens' if row['memory'] else 'none'} | {row['seed']} | {100 * row['exact']:.1f} % | {100 * row['digits']:.1f} % | {row['tokens']:,} | {row['seconds']:.0f} |"
        )
    if s := record.get("stream"):
        drift = s["behind"] / s["alone"] - 1
        lines += ["", f"A stream of {s['tokens']:,} tokens: loss {s['behind']:.4f} on the last fifth behind all the rest, {s['alone']:.4f} on its own, {100 * drift:+.2f} %; "
                  f"at most {s['resident'] / 1e6:.0f} MB behind {s['tokens']:,} tokens, {s['resident_alone'] / 1e6:.0f} MB behind a fifth of them."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["recall", "stream"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--model", default="nano-v1", help="of the stream")
    parser.add_argument("--hadal", type=pathlib.Path, default=ROOT / "build/release/hadal")
    parser.add_argument("--train", type=pathlib.Path, default=ROOT / "build/release/hadal-train")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/recurrence", help="without .md and .json")
    options = parser.parse_args()
    path = options.out.with_suffix(".json")
    record = json.loads(path.read_text()) if path.exists() else {"recall": []}
    record |= {"date": time.strftime("%Y-%m-%d"), "commit": commit()}

    def keep():
        path.write_text(json.dumps(record, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(markdown(record))

    with tempfile.TemporaryDirectory() as folder:
        if options.only != "stream":
            record["recall"] = []
            for seed in range(1, options.seeds + 1):
                for remembers in (True, False):
                    record["recall"].append(recall(options, pathlib.Path(folder), seed, remembers))
                    print(record["recall"][-1], file=sys.stderr, flush=True)
                    keep()
        if options.only != "recall":
            record["stream"] = stream(options, pathlib.Path(folder))
            keep()
    print(markdown(record))


if __name__ == "__main__":
    main()
