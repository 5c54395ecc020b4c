#!/usr/bin/env python3
"""What windows, sinks and chosen blocks save behind long texts, into bench/results/long.md: attention alone, whole models, memory.

  ninja -C build/release hadal bench_attention && bench/long.py        about eight minutes on two cores
  bench/long.py --only decode --out /tmp/try --patience 0               the rows whose figure begins so

Each figure of a model is one `hadal bench` in a process of its own, with random weights; memory is the most that process held. `d = 256` is a llama of
four layers (4 heads of 64, feed-forward 688, vocabulary 1,024) that this script writes.
"""

import argparse
import array
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time

from targets import ROOT, call, commit, wait_for_idle

WINDOW = ["--attention-window", 512, "--attention-sinks", 4]
BEHIND = ["--prompt", 0, "--generate", 32, "--depth"]
PROMPT = ["--generate", 0, "--repeat", 1, "--prompt"]
BLOCKS = lambda n: ["--attention-topk-blocks", n]  # noqa: E731

# figure, shape, weights, cache, arguments, (what is seen, arguments) of which the first is what the others are compared with
ROWS = [
    ("prefill 10240", "d = 256", "w8", "i8", [*PROMPT, 10240], [("all", []), ("512 + 4", WINDOW)]),
    ("prefill 10240", "d = 256", "f32", "f32", [*PROMPT, 10240], [("all", []), ("512 + 4", WINDOW)]),
    ("decode behind 10240", "coder-1.3b", "w4", "i8", [*BEHIND, 10240], [("all", []), ("512 + 4", WINDOW)]),
    ("decode behind 10240", "coder-1.3b", "w4", "f16", [*BEHIND, 10240], [("all", []), ("512 + 4", WINDOW)]),
    ("decode behind 10240", "coder-1.3b", "bf16", "f16", [*BEHIND, 10240], [("all", []), ("512 + 4", WINDOW)]),
    ("decode behind 16352", "coder-1.3b", "w4", "i8", [*BEHIND, 16352], [("all", []), ("64 of 256 blocks", BLOCKS(64)), ("32 of 256 blocks", BLOCKS(32))]),
    ("decode behind 16352", "coder-1.3b", "w4", "f16", [*BEHIND, 16352], [("all", []), ("64 of 256 blocks", BLOCKS(64)), ("32 of 256 blocks", BLOCKS(32))]),
    ("prefill 10240", "coder-1.3b", "w4", "i8", [*PROMPT, 10240], [("all", []), ("512 + 4", WINDOW)]),
]
# of bench_attention: rows, first position
ALONE = [("a prompt of 10240", "rows 10240 at 0"), ("64 rows behind 10240", "rows 64 at 10240"), ("one row behind 10240", "rows 1 at 10240")]


def write_small(folder):
    """A checkpoint with random weights."""
    dim, ffn, layers, vocab = 256, 688, 4, 1024
    shapes = {"model.embed_tokens.weight": (vocab, dim), "model.norm.weight": (dim,), "lm_head.weight": (vocab, dim)}
    for layer in range(layers):
        at = f"model.layers.{layer}."
        shapes |= {f"{at}self_attn.{part}_proj.weight": (dim, dim) for part in "qkvo"}
        shapes |= {f"{at}mlp.{part}_proj.weight": (ffn, dim) for part in ("gate", "up")} | {f"{at}mlp.down_proj.weight": (dim, ffn)}
        shapes |= {f"{at}{name}_layernorm.weight": (dim,) for name in ("input", "post_attention")}
    draw, header, data = random.Random(1), {}, bytearray()
    for name, shape in shapes.items():
        values = array.array("f", [1.0] * dim if len(shape) == 1 else (draw.uniform(-0.1, 0.1) for _ in range(shape[0] * shape[1]))).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (len(data), len(data) + len(values))}
        data += values
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    config = {"model_type": "llama", "vocab_size": vocab, "hidden_size": dim, "intermediate_size": ffn, "num_hidden_layers": layers,
              "num_attention_heads": 4, "max_position_embeddings": 16384, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def alone(program):
    """Microseconds of a layer by cache, part of a name, and whether there is a window."""
    text = subprocess.run([program, "coder-1.3b"], capture_output=True, text=True, check=True).stdout
    print(text, file=sys.stderr, flush=True)
    found = {}
    for line in text.splitlines()[2:]:
        name, microseconds, *_ = line.rsplit(None, 4)
        cache, what = name.removeprefix("coder-1.3b ").split(" ", 1)
        found[cache.lower(), what.split(" window")[0], "window" in what] = float(microseconds)
    return found


def markdown(record):
    m = record["machine"]
    lines = [
        "# Long text",
        "",
        f"`bench/long.py` on {record['date']}, commit {record['commit']}. {m['cpu']}, {m['threads']} threads, {m['isa']}. What a token sees: all before it, the last "
        "512 and the first 4 (sinks), or the best blocks of 64 (its own, the one before and the first among them). Limit: by the bytes and operations that",
        "remain. Memory: the most the process held. Random weights. *: the machine was not idle.",
    ]
    if record["rows"]:
        lines += ["", "| shape, weights, cache | figure | sees | tokens/s | times | of the limit | memory |", "|---|---|---|---|---|---|---|"]
    for row in record["rows"]:
        first = row["seen"][0]
        for seen in row["seen"]:
            times = memory = ""
            if seen is not first:
                times = f"{seen['tokens_per_second'] / first['tokens_per_second']:.2f} x"
                memory = f" ({100 * (seen['memory'] / first['memory'] - 1):+.0f} %)"
            lines.append(
                f"| {row['shape']}, {row['weights']}, {row['cache']} | {row['figure']}{'' if seen['idle'] else ' *'} | {seen['sees']} | "
                f"{seen['tokens_per_second']:,.1f} | {times} | {100 * seen['share']:.0f} % | {seen['memory'] / 1e9:.2f} GB{memory} |"
            )
    lines += ["", "Attention alone, of one layer of coder-1.3b's shape (`bench_attention coder-1.3b`), milliseconds:", ""]
    lines += ["| cache | rows | sees all | 512 + 4 | times |", "|---|---|---|---|---|"]
    for cache, name, full, window in record["alone"]:
        lines.append(f"| {cache} | {name} | {full / 1e3:,.3f} | {window / 1e3:,.3f} | {full / window:.1f} x |")
    lines += ["", "What the allocator gives for 10,240 tokens is the formula's count to the byte (`tests/infer/kv_cache_test.cpp`)."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="the rows whose figure begins so; attention alone is left out then")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for an idle machine before each figure")
    parser.add_argument("--hadal", type=pathlib.Path, default=ROOT / "build/release/hadal")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/long", help="without .md and .json")
    options = parser.parse_args()
    record = {"command": "bench/long.py", "date": time.strftime("%Y-%m-%d"), "commit": commit(), "machine": {}, "rows": [], "alone": []}
    if not options.only:
        wait_for_idle(options.patience)
        took = alone(options.hadal.with_name("bench_attention"))
        record["alone"] = [(cache, name, took[cache, rows, False], took[cache, rows, True]) for cache in ("i8", "f16") for name, rows in ALONE]
    with tempfile.TemporaryDirectory() as folder:
        write_small(pathlib.Path(folder))
        for figure, shape, weights, cache, arguments, masks in ROWS:
            if not figure.startswith(options.only):
                continue
            row = {"figure": figure, "shape": shape, "weights": weights, "cache": cache, "seen": []}
            for sees, mask in masks:
                idle = wait_for_idle(options.patience)
                model = [folder] if shape == "d = 256" else ["--preset", shape]
                text, memory, problem = call(
                    options.hadal, ["bench", *model, "--weights", weights, "--cache", cache, *arguments, *mask, "--threads", options.threads, "--json"]
                )
                if text is None:
                    sys.exit(f"{shape}, {figure}, {sees}: {problem}")
                answer = json.loads(text)
                record["machine"], result = answer["machine"], answer["results"][0]
                row["seen"].append({"sees": sees, "idle": idle, "memory": memory} | result)
                print(f"{shape} {weights} {cache} {figure}, sees {sees}: {result['tokens_per_second']:,.1f} tokens/s, {memory / 1e9:.2f} GB", file=sys.stderr, flush=True)
            record["rows"].append(row)
            options.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")  # after each row: the last take longest
            options.out.with_suffix(".md").write_text(markdown(record))


if __name__ == "__main__":
    main()
