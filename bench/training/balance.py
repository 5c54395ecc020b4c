#!/usr/bin/env python3
"""How evenly each kind of balance loads the experts of a small mixture, and what it costs: bench/results/balance.{json,md}.

  bench/training/balance.py                          both shapes, every kind
  bench/training/balance.py --shapes 8 --steps 100 --tokens 200000 --out /tmp/try

Every run has the same model (sigmoid router with a selection bias), data, seed and steps; only [balance] differs. Loads and losses are of text that
no run has seen; "calibrated" is the same model with biases fitted on other such text (`hadal balance --calibrate`).
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
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


def run(options, folder, shape, kind):
    output = folder / f"{shape}-{kind}"
    file = folder / f"{shape}-{kind}.toml"
    sizes = "\n".join(f"{key} = {value}" for key, value in SHAPES[shape].items())
    file.write_text(
        RUN.format(
            output=output,
            tokenizer=folder / "tokenizer",
            seed=options.seed,
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
    return {"experts": shape, "kind": kind, "seconds": trained["seconds"], "training_loss": trained["loss"], "measured": measured, "calibrated": calibrated}


def markdown(options, rows):
    lines = [
        "# Experts in balance",
        "",
        f"`bench/training/balance.py` on {time.strftime('%Y-%m-%d')}, commit {commit()}, seed {options.seed}: {options.steps} steps of {options.rows} x 256 tokens. "
        "Spread is (most - least) / mean of the experts' loads in the worst layer, floor what chance gives a perfectly even router. "
        "Change is that of the loss against the run without balance.",
        "",
        "| experts | balance | spread | loss | change | dead | MaxVio of 16k tokens | calibrated: spread | floor | loss | change |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        base = next(r["measured"]["loss"] for r in rows if r["experts"] == row["experts"] and r["kind"] == "none")
        m, c = row["measured"], row["calibrated"]
        lines.append(
            f"| {row['experts']} | {row['kind']} | {m['spread']:.1%} | {m['loss']:.4f} | {m['loss'] / base - 1:+.2%} | {m['dead']} | {m['batch_violation']:.2f} | "
            f"{c['spread']:.1%} | {c['floor']:.1%} | {c['loss']:.4f} | {c['loss'] / base - 1:+.2%} |"
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
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=2_200_000, help="of unseen text: half to fit on, half to measure")
    parser.add_argument("--out", default=ROOT / "bench" / "results" / "balance", type=pathlib.Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in options.shapes:
            for kind in options.kinds:
                rows.append(run(options, pathlib.Path(folder), shape, kind))
                last = rows[-1]
                print(f"{shape} experts, {kind}: {last['measured']['spread']:.1%}, calibrated {last['calibrated']['spread']:.1%}, loss {last['measured']['loss']:.4f}", flush=True)
                settings = {key: getattr(options, key) for key in ("steps", "rows", "seed", "tokens")}
                options.out.with_suffix(".json").write_text(json.dumps({"commit": commit(), **settings, "runs": rows}, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(markdown(options, rows))
    print(options.out.with_suffix(".md"))


if __name__ == "__main__":
    main()
