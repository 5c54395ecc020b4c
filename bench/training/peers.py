#!/usr/bin/env python3
"""Training speed beside PyTorch: the same model, the same batches of the same length, bf16 products, float32 weights, fused AdamW, two threads.

usage: bench/training/peers.py [--figures dense,moe,window] [--steps 12] [--out bench/results/training]

Eager and compiled PyTorch run transformers' own classes (SDPA attention); hadal runs `hadal train`. Each program runs alone; the figure is tokens per
second over the second half of the steps. Needs requirements-dev.txt and build/release/hadal-train.
"""

import argparse
import csv
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from targets import ROOT, commit, wait_for_idle  # noqa: E402

DENSE = dict(model_type="llama", vocab_size=4096, hidden_size=256, intermediate_size=768, num_hidden_layers=6, num_attention_heads=8,
             num_key_value_heads=4, max_position_embeddings=4096, rms_norm_eps=1e-6, rope_theta=10000.0, tie_word_embeddings=True)
MOE = dict(model_type="deepseek_v3", vocab_size=4096, hidden_size=192, intermediate_size=512, moe_intermediate_size=96, num_hidden_layers=5,
           num_attention_heads=6, num_key_value_heads=6, q_lora_rank=96, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16,
           v_head_dim=32, n_routed_experts=16, num_experts_per_tok=4, n_shared_experts=1, n_group=1, topk_group=1, first_k_dense_replace=1,
           norm_topk_prob=True, routed_scaling_factor=1.0, num_nextn_predict_layers=0, max_position_embeddings=4096, rms_norm_eps=1e-6,
           rope_theta=10000.0, tie_word_embeddings=True)
FIGURES = {  # model, rows, length, window
    "dense": (DENSE, 16, 512, 0),
    "moe": (MOE, 16, 512, 0),
    "window": (DENSE, 2, 4096, 512),
    "no window": (DENSE, 2, 4096, 0),
}


def toml(value):
    return json.dumps(value) if not isinstance(value, bool) else str(value).lower()


def hadal(model, rows, length, window, steps, folder):
    """Tokens per second of `hadal train`, from the seconds that its log implies."""
    run = folder / "run.toml"
    extra = f"attention_window = {window}\n" if window else ""
    run.write_text(
        f'output = "{folder / "out"}"\ntokenizer = "{ROOT / "models" / "tokenizer"}"\n[model]\n'
        + "".join(f"{k} = {toml(v)}\n" for k, v in model.items() if k != "vocab_size") + extra
        + f'[[data]]\nkind = "world_text"\nrows = {rows}\ntokens = {(steps + 1) * rows * (length + 1)}\n'
        + f"[batch]\nlength = {length}\n[schedule]\nsteps = {steps}\n[save]\nevery = 1000000\n"
    )
    subprocess.run([ROOT / "build" / "release" / "hadal", "train", run], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = [0.0]
    for row in csv.DictReader(open(folder / "out" / "log.csv")):  # its rate is the mean since the first step
        seconds.append(int(row["step"]) * rows * length / float(row["tokens_per_second"]))
    half = steps // 2
    return (steps - half) * rows * length / (seconds[steps] - seconds[half])


def pytorch(model, rows, length, window, steps, compiled):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(2)
    config = AutoConfig.for_model(**model)
    config._attn_implementation = "sdpa"
    network = AutoModelForCausalLM.from_config(config).float()
    parameters = sum(p.numel() for p in network.parameters())
    mask = None
    if window:  # PyTorch has no window on the CPU but a mask over all
        at = torch.arange(length)
        seen = (at[None] <= at[:, None]) & (at[None] > at[:, None] - window)
        mask = torch.zeros(length, length).masked_fill(~seen, float("-inf"))[None, None].to(torch.bfloat16)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    run = torch.compile(network) if compiled else network
    tokens = torch.randint(model["vocab_size"], (steps, rows, length + 1))
    for step in range(steps):
        if step == steps // 2:
            begin = time.monotonic()
        with torch.autocast("cpu", torch.bfloat16):
            logits = run(tokens[step, :, :-1], attention_mask=mask, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[step, :, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return {"tokens_per_second": (steps - steps // 2) * rows * length / (time.monotonic() - begin), "parameters": parameters}


def worker(name, figure, steps):
    print(json.dumps(pytorch(*FIGURES[figure], steps, name == "compiled")))


def measure(figure, steps, patience):
    row = {"figure": figure, "idle": True}
    for name in ("eager", "compiled"):
        row["idle"] &= wait_for_idle(patience)
        done = subprocess.run([sys.executable, __file__, "--worker", name, "--figures", figure, "--steps", str(steps)], capture_output=True,
                              text=True, timeout=1200)
        if done.returncode == 0:
            row |= {name: json.loads(done.stdout)["tokens_per_second"], "parameters": json.loads(done.stdout)["parameters"]}
        else:
            print(f"{figure}, {name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
    row["idle"] &= wait_for_idle(patience)
    with tempfile.TemporaryDirectory() as folder:
        row["hadal"] = hadal(*FIGURES[figure], steps, pathlib.Path(folder))
    return row


def page(rows, steps):
    lines = ["# Training beside PyTorch", "",
             f"`bench/training/peers.py --steps {steps}` on {datetime.date.today()}, commit {commit()}, {os.cpu_count()} threads. Tokens per second; bf16 "
             "products, float32 weights, fused AdamW. *: the machine was not idle.", "",
             "| model | parameters | hadal | eager PyTorch | ratio | torch.compile | ratio |", "|---|---|---|---|---|---|---|"]
    for r in rows:
        _, batch, length, window = FIGURES[r["figure"]]
        name = f"{r['figure']}: {batch} rows of {length}" + (f", window {window}" if window else "") + ("" if r["idle"] else " *")
        peer = [f"{r[p]:,.0f} | {r['hadal'] / r[p]:.2f}" if p in r else "- | -" for p in ("eager", "compiled")]
        lines.append(f"| {name} | {r.get('parameters', 0) / 1e6:.1f} M | {r['hadal']:,.0f} | {peer[0]} | {peer[1]} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", default=",".join(FIGURES))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for an idle machine before each program")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    figures = arguments.figures.split(",")
    if arguments.worker:
        return worker(arguments.worker, figures[0], arguments.steps)
    rows = [measure(figure, arguments.steps, arguments.patience) for figure in figures]
    text = page(rows, arguments.steps)
    print(text)
    if arguments.out:
        arguments.out.with_suffix(".md").write_text(text)
        arguments.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
