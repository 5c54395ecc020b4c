#!/usr/bin/env python3
"""Writes dequantize.gguf: three random blocks of every blocked type and what the gguf package reads from them, as F32 under
"expected.TYPE". Scales cover normal, negative, tiny (subnormal) and zero values.  usage: dequantize.py [OUT]"""

import pathlib
import sys

import gguf
import numpy as np

# Where the half-precision numbers stand in a block, in bytes.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}  # fmt: skip
BLOCKS = 3


def random_blocks(type_, halves, rng):
    values, size = gguf.GGML_QUANT_SIZES[type_]
    raw = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    for at in halves:
        scales = rng.normal(0, 0.1, BLOCKS).astype(np.float16)
        scales[1] = np.float16(3e-7)  # subnormal
        raw[:, at : at + 2] = scales[:, None].view(np.uint8)
    raw[2, halves[-1] : halves[-1] + 2] = 0
    return raw.reshape(1, -1), values


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).with_name("dequantize.gguf")
    rng = np.random.default_rng(20)
    writer = gguf.GGUFWriter(out, "llama")
    for name, halves in HALVES.items():
        type_ = gguf.GGMLQuantizationType[name]
        raw, _ = random_blocks(type_, halves, rng)
        writer.add_tensor(name.lower(), raw, raw_dtype=type_)
        writer.add_tensor("expected." + name.lower(), gguf.quants.dequantize(raw, type_).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
