#!/usr/bin/env python3
"""A student of 1/46 of its teacher's parameters, and what it keeps: bench/results/distill.{json,md}.

  bench/distill/run.py                     tokenizer, teacher, the teacher's answers, student, the same student on labels alone; runs/distill keeps them
  bench/distill/run.py --questions 500

Documents of four facts in English, questions of five types. Labelled are 5,000 questions; 100,000 more have only the teacher's answers. The report is `hadal
distill`'s (docs/distillation.md): 5,000 questions about worlds that none of them has seen. A part that is there is not made again.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from targets import ROOT, commit

RUNS = ROOT / "runs/distill"
TAUGHT = ["--split", "train", "--data-seed", 2, "--languages", "english", "--types", "lookup,negation,two_hop,compare,count", "--facts", 4]


def call(*command, output=None):
    done = subprocess.run(list(map(str, command)), cwd=ROOT, stdout=output)
    if done.returncode != 0:
        raise SystemExit(f"error: {' '.join(map(str, command))}")


def make(folder, made, *command):
    """Runs a training, or goes on with it."""
    if not (folder / made).exists():
        call(*command, *(["--resume"] if (folder / "state").exists() else []))


def percent(share):
    return f"{100 * share:.1f} %"


def between(interval):
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def markdown(record):
    sizes, student, hard = record["parameters"], record["student"]["against"], record["hard_labels"]["against"]
    lines = ["# Distillation", "", f"`bench/distill/run.py` on {record['date']}, commit {record['commit']}. A student of {sizes['student']:,} parameters, "
             f"1/{sizes['teacher'] / sizes['student']:.1f} of its teacher's {sizes['teacher']:,}, on {record['questions']['count']:,} questions of unseen worlds. "
             "Kept is accuracy over accuracy; above chance, both less what the commonest answer of each type reaches; intervals of 95 %.", ""]  # fmt: skip
    lines += ["| type | teacher | student | kept | | above chance | | labels alone | commonest answer |", "|---|---|---|---|---|---|---|---|---|"]
    for kept, alone in zip(student, hard):
        lines.append(
            f"| {kept.get('type', 'all')} | {percent(kept['teacher'])} | {percent(kept['student'])} | {percent(kept['retention'])} | {between(kept['retention_interval'])} | "
            f"{percent(kept['corrected'])} | {between(kept['corrected_interval'])} | {percent(alone['student'])} | {percent(kept['chance'])} |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=5000)
    parser.add_argument("--hadal", type=pathlib.Path, default=ROOT / "build/release/hadal")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/distill", help="without .md and .json")
    options = parser.parse_args()
    hadal = options.hadal.resolve()
    if not (RUNS / "tokenizer").exists():
        call(hadal, "tokenizer", HERE / "teacher.toml", "--vocab", 768, "--output", RUNS / "tokenizer")
    make(RUNS / "teacher", "model/config.json", hadal, "train", HERE / "teacher.toml")
    if not (RUNS / "taught.jsonl").exists():
        call(hadal, "answers", RUNS / "teacher/model", *TAUGHT, "--questions", 100_000, "--out", RUNS / "taught.jsonl")
    make(RUNS / "student", "report/report.json", hadal, "distill", HERE / "student.toml", "--hard-labels", HERE / "hard.toml", "--questions", options.questions)
    record = {"date": time.strftime("%Y-%m-%d"), "commit": commit()} | json.loads((RUNS / "student/report/report.json").read_text())
    options.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
