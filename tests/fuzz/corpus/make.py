#!/usr/bin/env python3
"""Writes the seeds of the checkpoint fuzzers: tiny files as the real packages write them. A folder per target, beside this file."""

import collections
import io
import pathlib
import zipfile

import gguf
import numpy as np
import safetensors.numpy
import torch

HERE = pathlib.Path(__file__).parent


def folder(name):
    (HERE / name).mkdir(exist_ok=True)
    return HERE / name


def safetensors_seeds():
    out = folder("safetensors")
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(0, np.int8), "c": np.ones((), np.float16)}
    (out / "few").write_bytes(safetensors.numpy.save(tensors, {"format": "pt"}))
    (out / "none").write_bytes(safetensors.numpy.save({}))


def gguf_seed(path, architecture, tensors, keys):
    writer = gguf.GGUFWriter(path, architecture)
    keys(writer)
    for name, (kind, shape) in tensors.items():
        type_ = gguf.GGMLQuantizationType[kind]
        values, size = gguf.GGML_QUANT_SIZES[type_]
        if kind == "F32":
            writer.add_tensor(name, np.ones(shape, np.float32))
        else:
            writer.add_tensor(name, np.full((*shape[:-1], shape[-1] // values * size), 17, np.uint8), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_seeds():
    out = folder("gguf")

    def tokenizer(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(["a", "b", "ab"])
        writer.add_token_types([1, 1, 3])
        writer.add_token_scores([0.5, 1.0, 2.0])
        writer.add_token_merges(["a b"])
        writer.add_chat_template("{{ messages }}")

    def numbers(writer):
        writer.add_rope_freq_base(1e4)
        writer.add_block_count(1)
        writer.add_bool("flag", True)
        writer.add_array("one", [1])
        writer.add_float64("wide", 0.25)

    names = ["token_embd.weight", "blk.0.attn_q.weight", "rope_freqs.weight", "output.weight", "surplus"]
    kinds = ["Q8_0", "Q4_1", "F32", "Q6_K", "F32"]
    gguf_seed(out / "llama", "llama", {n: (k, (1, 256)) for n, k in zip(names, kinds, strict=True)}, tokenizer)
    kinds = ["Q4_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "BF16", "I8", "I64"]
    gguf_seed(out / "types", "qwen3", {f"blk.{i}.ffn_up.weight": (k, (1, 256)) for i, k in enumerate(kinds)}, numbers)
    moe = {
        "blk.0.ffn_gate_exps.weight": ("F32", (3, 2, 4)),
        "blk.0.exp_probs_b.bias": ("F32", (3,)),
        "blk.0.attn_k_b.weight": ("Q8_0", (1, 2, 32)),
        "blk.0.attn_v_b.weight": ("F32", (1, 3, 2)),
    }
    gguf_seed(out / "deepseek2", "deepseek2", moe, numbers)


def torch_seeds():
    out = folder("pickle")
    base = torch.arange(12.0)
    shared = base.reshape(3, 4)
    state = collections.OrderedDict(a=shared, b=shared.t(), c=base[3:5], d=torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)))
    module = torch.nn.Linear(2, 1).state_dict()  # with _metadata
    several = {"epoch": 3, "loss": 0.5, "notes": [None, True, (1, 70000)], "model": {"w": torch.zeros(2, dtype=torch.float8_e4m3fn)}}
    for name, value in {"strided": state, "module": module, "several": several}.items():
        data = io.BytesIO()
        torch.save(value, data)
        (out / name).write_bytes(data.getvalue())
        with zipfile.ZipFile(data) as archive:
            pickle = next(n for n in archive.namelist() if n.endswith("data.pkl"))
            (out / f"{name}.pkl").write_bytes(archive.read(pickle))


def packed_seeds():
    """What packed.cpp reads: for each matrix of its model a format, that the shapes are right, then codes, scales and sums."""
    out = folder("packed")
    rows = [17, *[32] * 4, *[33] * 2, 32, 17]  # vocabulary 17, width 32, hidden 33: embedding; q, k, v, o; gate, up; down; head
    blocks = {"w8": 2048, "w4": 1088, "w3": 832, "w2": 576}
    for choice, (name, block) in enumerate(blocks.items()):
        data = b""
        for r in rows:
            padded = (r + 15) // 16 * 16
            data += bytes([choice, 2]) + bytes(range(16)) * (padded // 16 * block // 16)
            data += np.full(padded, 0.01, np.float32).tobytes() + np.full(padded, 960, np.int32).tobytes()
        (out / name).write_bytes(data)


def tool_calls_seeds():
    """What tool_calls.cpp reads: how calls are written, then a reply."""
    out = folder("tool_calls")
    block = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    replies = {
        "tagged": 'Look <tool_call>\n{"name": "f", "arguments": {"a": [1]}}\n</tool_call>',
        "fenced": block.format('function<｜tool▁sep｜>f\n```json\n{"a": 1}\n```'),
        "plain": block.format('f<｜tool▁sep｜>{"a": 1}'),
        "dsml": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="a" string="true">x</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        "</｜DSML｜function_calls>",
    }
    for style, (name, reply) in enumerate(replies.items()):
        (out / name).write_bytes(bytes([style]) + reply.encode())


def mix_bits(x):  # core/random.h
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def hash_bytes(data):
    value = mix_bits(len(data))
    for at in range(0, len(data), 8):
        value = mix_bits(value ^ int.from_bytes(data[at : at + 8], "little"))
    return value


def shard_seeds():  # data/shards.h
    for name, width, tokens in (("narrow", 2, [1, 2, 3, 299, 0]), ("wide", 4, list(range(17)))):
        payload = b"".join(t.to_bytes(width, "little") for t in tokens) + b"\x05" * ((len(tokens) + 7) // 8)
        values = [0, len(tokens), 2, 300, 11, 12, 0, hash_bytes(payload)]
        head = b"hadalsh1" + width.to_bytes(4, "little") + (1).to_bytes(4, "little") + b"".join(v.to_bytes(8, "little") for v in values)
        header = head + hash_bytes(head + bytes(8)).to_bytes(8, "little")
        (folder("shard") / name).write_bytes(header + payload)


if __name__ == "__main__":
    torch.manual_seed(1)
    packed_seeds()
    shard_seeds()
    tool_calls_seeds()
    safetensors_seeds()
    gguf_seeds()
    torch_seeds()
