#!/usr/bin/env python3
"""What decides when a small model begins to look things up: bench/results/lookup.{json,md}.

  bench/training/lookup.py                           every recipe, two seeds
  bench/training/lookup.py --seeds 1 --steps 300 --out /tmp/try

Documents tell of two people where they live ("Emma lives in Turin. Flora lives in Vienna."), and a question asks for one of them. Who only knows that a town is asked
for is right half of the time; a model stays there until it has learnt to bind names to towns, and then needs few steps. Recipes differ in the optimizer, its
rate, and what documents and questions weigh in the loss beside the answers (`prompt_weight`). Test documents pair the same names and towns anew.
"""

import argparse
import csv
import json
import pathlib
import random
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from commands import call
from targets import ROOT, commit

RECIPES = [  # optimizer, its rate for matrices, rate of the rest, prompt_weight
    ("muon", 0.02, 3e-3, 0),
    ("muon", 0.01, 1e-3, 0),
    ("muon", 0.005, 1e-3, 0),
    ("muon", 0.01, 1e-3, 0.2),
    ("adamw", 1e-3, 1e-3, 0),
    ("adamw", 3e-3, 3e-3, 0),
]
NAMES = """Emma Flora Nina Robert Daniel Sam Laura Nick Olga Jane Alan Julia Daisy Irene Carl Jack Rita Linda Bruno Oscar Zoe Grace John Paula Fiona Iris Kate Lily
George Mia Steve Lucy Max Eric Tina""".split()
TOWNS = "Paris Turin Vienna Miami Berlin Munich Sydney Lisbon Hamburg Rome Madrid Oslo Dublin Prague Athens Cairo Lima Boston Chicago Dallas".split()
DOCUMENTS = 60_000
RUN = """output = "{output}"
tokenizer = "{root}/models/tokenizer"
seed = {seed}

[model]
model_type = "llama"
hidden_size = 128
intermediate_size = 384
num_hidden_layers = 3
num_attention_heads = 4
num_key_value_heads = 2
max_position_embeddings = 4096
tie_word_embeddings = true

[[data]]
kind = "jsonl"
path = "{documents}"
rows = 64
whole_rows = true
prompt_weight = {prompt_weight}

[[evaluation]]
kind = "jsonl"
path = "{documents}"
split = "test"
rows = 64
whole_rows = true

[batch]
length = 48

[optimizer]
kind = "{optimizer}"
learning_rate = {rate}
muon_rate = {matrix_rate}

[schedule]
shape = "trapezoid"
steps = {steps}
warmup = 50
cooldown = 0.1
floor = 0.02

[evaluate]
every = {every}

[save]
every = 100000
"""


def write_documents(file):
    draw = random.Random(1)
    with file.open("w") as out:
        for _ in range(DOCUMENTS):
            names, towns, asked = draw.sample(NAMES, 2), draw.sample(TOWNS, 2), draw.randrange(2)
            text = " ".join(f"{name} lives in {town}." for name, town in zip(names, towns))
            out.write(json.dumps({"text": text, "question": f"Where does {names[asked]} live?", "answer": towns[asked]}) + "\n")


def run(options, folder, recipe, seed):
    optimizer, matrix_rate, rate, prompt_weight = recipe
    file, output, documents = folder / "run.toml", folder / f"{optimizer}-{matrix_rate}-{prompt_weight}-{seed}", folder / "documents.jsonl"
    settings = {"root": ROOT, "output": output, "seed": seed, "documents": documents, "steps": options.steps, "every": options.steps // 5}
    settings |= {"optimizer": optimizer, "rate": rate, "matrix_rate": matrix_rate, "prompt_weight": prompt_weight}
    file.write_text(RUN.format(**settings))
    trained = call(options.train, "train", file, "--json")
    losses = [float(row["evaluation"]) for row in csv.DictReader((output / "log.csv").open()) if row["evaluation"]]
    marks = call(options.hadal, "answers", output / "model", "--source", "jsonl", "--path", documents, "--split", "test", "--questions", 1000, "--json")
    return {"optimizer": optimizer, "matrix_rate": matrix_rate, "rate": rate, "prompt_weight": prompt_weight, "seed": seed, "losses": losses,
            "exact": marks["all"]["exact"], "tokens": trained["tokens"], "seconds": trained["seconds"]}  # fmt: skip


def markdown(record):
    lines = ["# When looking things up begins", "", f"`bench/training/lookup.py` on {record['date']}, commit {record['commit']}. What the figures are: `--help`.", ""]
    lines += ["| optimizer | rate | prompt_weight | seed | loss at each fifth | right | tokens | seconds |", "|---|---|---|---|---|---|---|---|"]
    for row in record["runs"]:
        rate = f"{row['matrix_rate']:g}" + (f", {row['rate']:g} of what is no matrix" if row["optimizer"] == "muon" else "")
        losses = " ".join(f"{loss:.2f}" for loss in row["losses"])
        lines.append(
            f"| {row['optimizer']} | {rate} | {row['prompt_weight']:g} | {row['seed']} | {losses} | {100 * row['exact']:.1f} % | {row['tokens']:,} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--hadal", type=pathlib.Path, default=ROOT / "build/release/hadal")
    parser.add_argument("--train", type=pathlib.Path, default=ROOT / "build/release/hadal-train")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/lookup", help="without .md and .json")
    options = parser.parse_args()
    record = {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "runs": []}
    with tempfile.TemporaryDirectory() as folder:
        write_documents(pathlib.Path(folder) / "documents.jsonl")
        for recipe in RECIPES:
            for seed in range(1, options.seeds + 1):
                record["runs"].append(run(options, pathlib.Path(folder), recipe, seed))
                print(record["runs"][-1], file=sys.stderr, flush=True)
                options.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
                options.out.with_suffix(".md").write_text(markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
