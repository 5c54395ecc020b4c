#!/usr/bin/env python3
"""A student of at most 1/44 of its teacher's parameters, and what it keeps: bench/results/distill.{json,md}.

  bench/distill/run.py                     teacher, its answers, three students, and three of the same on labels alone
  bench/distill/run.py --seeds 1 --questions 500 --scale 0.1 --folder /tmp/try --out /tmp/try/distill

Documents of two facts in English and what they say: ten relations, asked for in both directions. All learn in lessons, each from where the last one ended: where
one of two people lives; then all that a document says. The teacher, which becomes a mixture of 128 experts in the end and goes on a little, has as many labels as it
wants. The students have none: they read documents and questions, and learn what the teacher says to them. The students on labels alone have the right answers to
5,000 questions, and the same lessons, steps and seeds. Marked are all on questions about worlds that none of them has seen (docs/distillation.md). A part that is in the folder is not made again.
"""

import argparse
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from commands import call
from targets import ROOT, commit

TEACHER = """model_type = "deepseek_v3"
hidden_size = 128
intermediate_size = 384
num_hidden_layers = 6
num_attention_heads = 4
q_lora_rank = 0
kv_lora_rank = 64
qk_nope_head_dim = 16
qk_rope_head_dim = 16
v_head_dim = 32
num_nextn_predict_layers = 0
max_position_embeddings = 1024
tie_word_embeddings = true
n_routed_experts = 0
"""
UPCYCLED = ["--experts", 128, "--active", 4, "--expert-dim", 96, "--router", "sigmoid"]
STUDENT = """model_type = "llama"
hidden_size = 104
intermediate_size = 200
num_hidden_layers = 6
num_attention_heads = 4
num_key_value_heads = 2
max_position_embeddings = 1024
tie_word_embeddings = true
"""
BALANCE = """
[balance]
kind = "bias"
rate = 0.003
"""
LESSONS = {  # what is asked; tokens of a row; rows of this lesson and of the one before; steps of teacher and students; documents that the teacher answers questions about; labels
    "first": {"asked": {"types": ["lookup"], "relations": ["city"], "facts": 2}, "length": 64, "rows": (64, 0), "steps": (1000, 1500), "taught": 80_000, "labels": 1000},
    "lookups": {"asked": {"types": ["lookup"], "facts": 2}, "length": 128, "rows": (32, 10), "steps": (2000, 2500), "taught": 120_000, "labels": 4000},
}
MIXTURE_STEPS, ASKED = 150, 2
RUN = """tokenizer = "{tokenizer}"
seed = {seed}
{model}
{data}{table}
[batch]
length = {length}

[optimizer]
kind = "muon"
learning_rate = {rate}
muon_rate = {muon_rate}

[schedule]
shape = "trapezoid"
steps = {steps}
warmup = 50
cooldown = 0.3
floor = 0.02

[save]
every = 1000
"""


def talks(lines):
    """A line for each document: what was asked about it, and what was said."""
    for text, about in itertools.groupby(lines, key=lambda line: line["text"]):
        messages = []
        for line in about:
            if line["answer"]:  # it may have said nothing
                question = line["question"] if messages else f"{text}\n{line['question']}"
                messages += [{"role": "user", "content": question}, {"role": "assistant", "content": line["answer"]}]
        if messages:
            yield json.dumps({"messages": messages}, ensure_ascii=False) + "\n"


class Bench:
    def __init__(self, options):
        self.options, self.folder, self.hadal = options, options.folder.resolve(), options.hadal.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)

    def source(self, rows, **keys):
        lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        return "\n".join(["[[data]]", *lines, f"rows = {rows}", "whole_rows = true", ""])

    def taught(self, lesson, rows):
        return self.source(rows, kind="jsonl", path=str(self.answers(lesson)), split="all")

    def answers(self, lesson):
        """The teacher's, to documents without labels."""
        said, file = self.folder / f"said-{lesson}.jsonl", self.folder / f"taught-{lesson}.jsonl"
        if not file.exists():
            what = LESSONS[lesson]["asked"]
            lists = [part for key in ("types", "relations") if key in what for part in (f"--{key}", ",".join(what[key]))]
            count = round(LESSONS[lesson]["taught"] * self.options.scale)
            call(self.hadal, "answers", self.folder / "teacher/mixture/model", "--split", "train", "--data-seed", 2, "--languages", "english", *lists,
                 "--facts", what["facts"], "--questions", count, "--per-document", ASKED, "--max-tokens", 12, "--out", said, "--json")  # fmt: skip
            file.write_text("".join(talks([json.loads(line) for line in said.open()])))
        return file

    def train(self, folder, steps, seed, lesson, data, start, rates, table):
        """One lesson, from a model or a shape; its model."""
        if not (folder / "model/config.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            shape, how = (start, []) if isinstance(start, str) else ("", ["--from", start])
            (folder / "run.toml").write_text(RUN.format(
                tokenizer=self.folder / "tokenizer", seed=seed, model=shape, data=data, length=LESSONS[lesson]["length"], rate=rates[0], muon_rate=rates[1],
                steps=max(1, round(steps * self.options.scale)), table=table))  # fmt: skip
            how += ["--resume"] if (folder / "state").exists() else []
            command = ["distill", "--questions", 0] if table.startswith("[distill]") else ["train"]
            done = call(self.hadal, *command, folder / "run.toml", "--output", folder, *how, "--json")
            print(f"{folder.parent.name}, {folder.name}: loss {done['loss']:.4f}, {done['seconds']:.0f} s", flush=True)
        return folder / "model"

    def learn(self, who, shape, seed, source, rates, table=""):
        """All lessons; the last one's model. source: of a lesson, so many rows."""
        before, model = None, "\n[model]\n" + shape
        for lesson, plan in LESSONS.items():
            data = source(lesson, plan["rows"][0]) + (source(before, plan["rows"][1]) if before else "")
            model = self.train(self.folder / who / lesson, plan["steps"][who != "teacher"], seed, lesson, data, model, rates, table)
            before = lesson
        return model

    def teach(self):
        def worlds(lesson, rows):
            return self.source(rows, kind="world_qa", languages=["english"], seed=1, tokens=4_000_000, questions=ASKED, **LESSONS[lesson]["asked"])

        if not (self.folder / "tokenizer").exists():
            file = self.folder / "tokenizer.toml"
            file.write_text(worlds("lookups", 1))
            subprocess.run([self.hadal, "tokenizer", file, "--vocab", "768", "--output", self.folder / "tokenizer"], check=True)
        dense, mixture = self.learn("teacher", TEACHER, 1, worlds, (1e-3, 0.01)), self.folder / "teacher/upcycled"
        if not mixture.exists():
            call(self.hadal, "upcycle", dense, mixture, *UPCYCLED, "--json")
        return self.train(self.folder / "teacher/mixture", MIXTURE_STEPS, 1, "lookups", worlds("lookups", 32) + worlds("first", 10), mixture, (5e-4, 0.005), BALANCE)

    def mark(self, model, against=None):
        out = model.parents[1] / "answers.jsonl"
        last = LESSONS["lookups"]["asked"]
        how = ["--against", against] if against else []
        report = call(self.hadal, "answers", model, "--split", "worlds", "--languages", "english", "--types", ",".join(last["types"]), "--facts", last["facts"],
                      "--questions", self.options.questions, "--out", out, *how, "--json")  # fmt: skip
        del report["model"]  # a path of this machine
        return report, out

    def run(self):
        record = {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "questions": self.options.questions, "seeds": []}
        teacher = self.teach()
        record["teacher"], said = self.mark(teacher)
        distill = f'[distill]\nteacher = "{teacher}"\ncache = "teacher.logits"\nforward = 0.7\nhard = 0.3\n'
        for seed in range(1, self.options.seeds + 1):
            student = self.learn(f"student-{seed}", STUDENT, seed, self.taught, (1e-3, 0.01), distill)
            alone = self.learn(f"labels-{seed}", STUDENT, seed, self.labels, (1e-3, 0.01))
            record["seeds"].append({"seed": seed, "student": self.mark(student, said)[0], "labels": self.mark(alone, said)[0]})
        models = {"teacher": teacher, "student": student}
        record["parameters"] = {name: call(self.hadal, "info", model, "--json")["parameters"] for name, model in models.items()}
        return record

    def labels(self, lesson, rows):
        """The right answers to a few questions."""
        count = round(LESSONS[lesson]["labels"] * self.options.scale)
        file = self.folder / f"labels-{lesson}.jsonl"
        if not file.exists():
            self.answers(lesson)
            said = map(json.loads, (self.folder / f"said-{lesson}.jsonl").open())
            file.write_text("".join(talks([line | {"answer": line["expected"]} for line in itertools.islice(said, count)])))
        return self.source(rows, kind="jsonl", path=str(file), split="all")


def percent(share):
    return f"{100 * share:.1f} %"


def markdown(record):
    teacher, student = record["parameters"]["teacher"], record["parameters"]["student"]
    lines = ["# Distillation", "", f"`bench/distill/run.py` on {record['date']}, commit {record['commit']}. A student of {student['total']:,} parameters, "
             f"1/{teacher['total'] / student['total']:.1f} of its teacher's {teacher['total']:,} ({teacher['active']:,} of them for a token), on {record['questions']:,} questions about unseen worlds. "
             "Kept is accuracy over accuracy, with intervals of 95 %; above chance, both less what the commonest answer of each type reaches. What the rest is: `--help`.", ""]  # fmt: skip
    lines += ["| seed | type | teacher | student | kept | | above chance | labels alone | commonest answer |", "|---|---|---|---|---|---|---|---|---|"]
    for run in record["seeds"]:
        for kept, alone in zip(run["student"]["against"], run["labels"]["against"]):
            if "language" in kept and "type" not in kept:
                continue
            low, high = kept["retention_interval"]
            lines.append(
                f"| {run['seed']} | {kept.get('type', 'all')} | {percent(kept['teacher'])} | {percent(kept['student'])} | {percent(kept['retention'])} | {100 * low:.1f} to {100 * high:.1f} | "
                f"{percent(kept['corrected'])} | {percent(alone['student'])} | {percent(kept['chance'])} |"
            )
    every = [(run["student"]["against"][0], run["labels"]["against"][0]) for run in record["seeds"]]
    kept = statistics.mean(student["retention"] for student, _ in every)
    over = statistics.mean(student["student"] - alone["student"] for student, alone in every)
    lines += ["", f"Mean of {len(every)} seeds: {percent(kept)} kept, {100 * over:.1f} points over labels alone."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=5000)
    parser.add_argument("--scale", type=float, default=1, help="of steps, documents and labels")
    parser.add_argument("--hadal", type=pathlib.Path, default=ROOT / "build/release/hadal")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "runs/distill", help="where all of it is kept")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/distill", help="without .md and .json")
    options = parser.parse_args()
    record = Bench(options).run()
    options.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
