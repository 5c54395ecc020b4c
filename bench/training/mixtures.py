#!/usr/bin/env python3
"""What experts are worth at equal work: bench/results/mixtures.{json,md}.

  bench/training/mixtures.py                         ten seeds of each, three of them continued and upcycled
  bench/training/mixtures.py --seeds 2 --steps 200 --folder /tmp/try --out /tmp/try/mixtures

Jane Austen's novels and WordNet's definitions (script/corpus english). A dense model, and a mixture that does as much work for a token: a shared expert and two
of 64, of a third of the dense width each. The mixture has eight tenths of the dense model's steps, with a schedule of its own. Then the dense model goes on for
as many steps again, as it is and upcycled to such a mixture. Losses are of every 50th document, which no run has seen. A part that is
in the folder is not made again.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from commands import call
from targets import ROOT, commit

LENGTH, ROWS = 256, 16
SHAPE = """model_type = "deepseek_v3"
hidden_size = 64
num_hidden_layers = 4
num_attention_heads = 4
intermediate_size = 192
max_position_embeddings = 512
q_lora_rank = 0
kv_lora_rank = 32
qk_nope_head_dim = 8
qk_rope_head_dim = 8
v_head_dim = 16
num_nextn_predict_layers = 0
tie_word_embeddings = true
"""
DENSE = SHAPE + "n_routed_experts = 0\n"
EXPERTS, ACTIVE, WIDTH = 64, 2, 64
MIXTURE = f"""{SHAPE}first_k_dense_replace = 0
n_routed_experts = {EXPERTS}
num_experts_per_tok = {ACTIVE}
moe_intermediate_size = {WIDTH}
n_shared_experts = 1
n_group = 1
topk_group = 1
routed_scaling_factor = 1.0
"""
BALANCE = """[balance]
kind = "bias"
rate = 0.003
"""
RUN = """output = "{output}"
tokenizer = "{tokenizer}"
seed = {seed}

[model]
{model}

[[data]]
kind = "corpus"
path = "english"
rows = {rows}

[[evaluation]]
kind = "corpus"
path = "english"
split = "test"
rows = {rows}

[batch]
length = {length}

[optimizer]
kind = "muon"
learning_rate = 1e-3
muon_rate = {muon_rate}

[schedule]
shape = "trapezoid"
steps = {steps}
warmup = {warmup}
cooldown = 0.4
floor = 0.02

[evaluate]
batches = 24

[save]
every = 100000
type = "f32"

{balance}
"""


class Runs:
    def __init__(self, options):
        self.options, self.folder = options, options.folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)

    def train(self, name, seed, model, steps, balance="", muon_rate=0.02):
        """The loss on unseen text, and the model's folder."""
        output, file, found = (self.folder / f"{name}{end}" for end in ("", ".toml", ".json"))
        if found.exists():
            return json.loads(found.read_text()), output / "model"
        settings = {"output": output, "tokenizer": self.folder / "tokenizer", "seed": seed, "model": model, "rows": ROWS, "length": LENGTH, "steps": steps}
        file.write_text(RUN.format(**settings, warmup=max(1, steps // 20), balance=balance, muon_rate=muon_rate))
        if not (self.folder / "tokenizer").exists():
            subprocess.run([self.options.train, "tokenizer", file, "--vocab", "1024", "--output", self.folder / "tokenizer"], check=True, capture_output=True)
        done = call(self.options.train, "train", file, "--json")
        print(f"{name}: {done['evaluation']:.4f} after {steps} steps, {done['seconds']:.0f} s", flush=True)
        found.write_text(json.dumps({"seed": seed, "steps": steps, "loss": done["evaluation"], "seconds": done["seconds"]}))
        return json.loads(found.read_text()), output / "model"

    def go_on(self, seed, model):
        """The dense model for as many steps again, as it is and upcycled."""
        steps = self.options.steps
        mixture = self.folder / f"upcycled-{seed}-start"
        if not mixture.exists():
            call(self.options.train, "upcycle", model, mixture, "--experts", EXPERTS, "--active", ACTIVE, "--shared", 1, "--expert-dim", WIDTH, "--router", "sigmoid", "--json")
        return {
            "continued": self.train(f"continued-{seed}", seed, f'from = "{model}"', steps)[0],
            "upcycled": self.train(f"upcycled-{seed}", seed, f'from = "{mixture}"', steps, BALANCE)[0],
        }


def markdown(record):
    mean = statistics.mean(run["loss"] for run in record["dense"])
    below_mean = sum(run["loss"] <= mean for run in record["mixture"])
    below_own = sum(run["loss"] <= dense["loss"] for run, dense in zip(record["mixture"], record["dense"]))
    lines = ["# Experts at equal work", "", f"`bench/training/mixtures.py --steps {record['dense'][0]['steps']}` on {record['date']}, commit {record['commit']}. What the figures are: `--help`.", ""]
    lines += ["| run | seeds | steps | loss, mean | least | most |", "|---|---|---|---|---|---|"]
    groups = {"dense": record["dense"], "mixture": record["mixture"]}
    for kind in ("continued", "upcycled"):
        groups[f"dense, then {kind}"] = [run[kind] for run in record["onward"]]
    for name, runs in groups.items():
        losses = [run["loss"] for run in runs]
        lines.append(f"| {name} | {len(runs)} | {runs[0]['steps']} | {statistics.mean(losses):.4f} | {min(losses):.4f} | {max(losses):.4f} |")
    share = record["mixture"][0]["steps"] / record["dense"][0]["steps"]
    lines += ["", f"With {share:.2f} x its steps {below_own} of {len(record['mixture'])} seeds of the mixture are at or below the dense model of the same seed, {below_mean} at or below the dense models' mean."]
    better = [1 - run["upcycled"]["loss"] / run["continued"]["loss"] for run in record["onward"]]
    lines += [f"Upcycled is {', '.join(f'{share:.1%}' for share in better)} below continued dense."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="three of them at most go on")
    parser.add_argument("--steps", type=int, default=1200, help="of the dense model")
    parser.add_argument("--hadal", type=pathlib.Path, default=ROOT / "build/release/hadal")
    parser.add_argument("--train", type=pathlib.Path, default=ROOT / "build/release/hadal-train")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "runs/mixtures", help="where all of it is kept")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/mixtures", help="without .md and .json")
    options = parser.parse_args()
    record = {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "dense": [], "mixture": [], "onward": []}

    runs = Runs(options)
    for seed in range(1, options.seeds + 1):
        dense, model = runs.train(f"dense-{seed}", seed, DENSE, options.steps)
        record["dense"].append(dense)
        record["mixture"].append(runs.train(f"mixture-{seed}", seed, MIXTURE, options.steps * 8 // 10, BALANCE)[0])
        if seed <= 3:
            record["onward"].append(runs.go_on(seed, model))
    options.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
