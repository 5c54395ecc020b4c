#!/usr/bin/env python3
"""How evenly each kind of balance loads the experts of a small mixture, and what it costs: bench/results/balance.{json,md}.

  bench/training/balance.py                          both shapes, every kind, three seeds: some 35 minutes of one core a seed
  bench/training/balance.py --shapes 8 --seeds 1 --steps 100 --tokens 200000 --folder /tmp/try --out /tmp/try/balance

Every run of a seed has the same model (sigmoid router with a selection bias), data and steps; only [balance] differs. Loads and losses are of text that
no run has seen; "calibrated" is the same model with biases fitted on other such text (`hadal balance --calibrate`). What --folder has is not made again.
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

SHAPES = {
    "8": {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 128},
    "64": {"n_routed_experts": 64, "num_experts_per_tok": 6, "moe_intermediate_size": 40},
}
KINDS = {  # name: lines of [balance]
    "none": ['kind = "none"'],
    "article": ['kind = "article"'],
    "switch": ['kind = "switch"', "z_loss = 1e-3"],
    "sequence": ['kind = "sequence"', "weight = 1e-2"],
    "bias": ['kind = "bias"', "rate = 0.005"],
    "quantile": ['kind = "quantile"', "rate = 0.3"],
}
RUN = """output = "{output}"
tokenizer = "{tokenizer}"
seed = {seed}

[model]
model_type = "deepseek_v3"
hidden_size = 128
num_hidden_layers = 4
num_attention_heads = 4
intermediate_size = 384
max_position_embeddings = 512
q_lora_rank = 0
kv_lora_rank = 64
qk_nope_head_dim = 24
qk_rope_head_dim = 8
v_head_dim = 32
num_nextn_predict_layers = 0
tie_word_embeddings = true
first_k_dense_replace = 1
n_shared_experts = 1
n_group = 1
topk_group = 1
routed_scaling_factor = 1.0
{shape}

[[data]]
kind = "world_text"
rows = {rows}
tokens = {train_tokens}

[[evaluation]]
kind = "world_text"
split = "worlds"
rows = {rows}
tokens = 100000

[batch]
length = 256

[optimizer]
learning_rate = 3e-3

[schedule]
steps = {steps}
warmup = {warmup}

[evaluate]
batches = 4

[balance]
{balance}
"""


def measure(options, model, tokens, *more):
    found = call(options.hadal, "balance", model, "world_text:worlds", "--tokens", tokens, "--context", 256, "--loss", "--json", *more)
    worst = max(found["layers"], key=lambda layer: layer["spread"])
    keys = ("max_violation", "batch_violation", "entropy")
    return {
        "spread": worst["spread"],
        "floor": worst["floor"],
        "loss": found["loss"],
        "tokens": found["tokens"],
        "dead": sum(layer["dead"] for layer in found["layers"]),
        **{key: worst[key] for key in keys},
        "layers": [{"layer": layer["layer"], "spread": layer["spread"]} for layer in found["layers"]],
    }


def run(options, shape, kind, seed):
    folder = options.folder.resolve()
    output, file, found = (folder / f"{shape}-{kind}-{seed}{end}" for end in ("", ".toml", ".json"))
    if found.exists():
        return json.loads(found.read_text())
    sizes = "\n".join(f"{key} = {value}" for key, value in SHAPES[shape].items())
    file.write_text(
        RUN.format(
            output=output,
            tokenizer=folder / "tokenizer",
            seed=seed,
            shape=sizes,
            rows=options.rows,
            train_tokens=options.rows * 257 * options.steps,
            steps=options.steps,
            warmup=max(1, options.steps // 20),
            balance="\n".join(KINDS[kind]),
        )
    )
    if not (folder / "tokenizer").exists():
        subprocess.run([options.train, "tokenizer", file, "--vocab", "1024", "--output", folder / "tokenizer"], check=True, capture_output=True)
    trained = call(options.train, "train", file, "--json")
    measured = measure(options, output / "model", options.tokens // 2)
    calibrated = measure(options, output / "model", options.tokens, "--calibrate", output / "calibrated")
    print(f"{shape} experts, {kind}, seed {seed}: {measured['spread']:.1%}, calibrated {calibrated['spread']:.1%}, loss {measured['loss']:.4f}", flush=True)
    row = {"experts": shape, "kind": kind, "seed": seed, "seconds": trained["seconds"], "training_loss": trained["loss"], "measured": measured, "calibrated": calibrated}
    found.write_text(json.dumps(row))
    return row


def markdown(record):
    runs = {}
    for row in record["runs"]:
        runs.setdefault((row["experts"], row["kind"]), []).append(row)
    percents = lambda values: ", ".join(f"{100 * value:.1f}" for value in values) + " %"
    seeds = len(record["runs"]) // len(runs)
    lines = [
        "# Experts in balance",
        "",
        f"`bench/training/balance.py` on {record['date']}, commit {record['commit']}, {seeds} seeds of each: {record['steps']} steps of {record['rows']} x 256 tokens. "
        "Spread is (most - least) / mean of the experts' loads in the worst layer, floor what chance gives a perfectly even router. "
        "Change is that of the mean loss against that of the runs without balance.",
        "",
        "| experts | balance | spread | loss | change | dead | MaxVio of 16k tokens | calibrated: spread | floor | loss | change |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (experts, kind), rows in runs.items():
        of = lambda which, key, rows=rows: [row[which][key] for row in rows]
        base = statistics.mean(row["measured"]["loss"] for row in runs[experts, "none"])
        loss, calibrated_loss = (statistics.mean(of(which, "loss")) for which in ("measured", "calibrated"))
        lines.append(
            f"| {experts} | {kind} | {percents(of('measured', 'spread'))} | {loss:.4f} | {loss / base - 1:+.2%} | {max(of('measured', 'dead'))} | "
            f"{statistics.mean(of('measured', 'batch_violation')):.2f} | {percents(of('calibrated', 'spread'))} | {of('calibrated', 'floor')[0]:.1%} | "
            f"{calibrated_loss:.4f} | {calibrated_loss / base - 1:+.2%} |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hadal", default=ROOT / "build" / "release" / "hadal", type=pathlib.Path)
    parser.add_argument("--train", default=ROOT / "build" / "release" / "hadal-train", type=pathlib.Path)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=2_200_000, help="of unseen text: half to fit on, half to measure")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "runs" / "balance", help="where all of it is kept")
    parser.add_argument("--out", default=ROOT / "bench" / "results" / "balance", type=pathlib.Path, help="without .md and .json")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    settings = {key: getattr(options, key) for key in ("steps", "rows", "tokens")}
    record = {"date": time.strftime("%Y-%m-%d"), "commit": commit(), **settings, "runs": []}
    for shape in options.shapes:
        for kind in options.kinds:
            record["runs"] += [run(options, shape, kind, seed) for seed in range(1, options.seeds + 1)]
    options.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(markdown(record))
    print(options.out.with_suffix(".md"))


if __name__ == "__main__":
    main()
