"""A bf16 model is used where it is mapped: its memory peaks below 1.15 times its file."""

import json
import struct
import subprocess
import sys

import numpy as np

SHAPE = dict(vocab_size=16000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=12, num_attention_heads=16)


def tensors():
    d, f, v = SHAPE["hidden_size"], SHAPE["intermediate_size"], SHAPE["vocab_size"]
    yield "model.embed_tokens.weight", (v, d)
    for layer in range(SHAPE["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        for name in "qkvo":
            yield f"{at}self_attn.{name}_proj.weight", (d, d)
        yield f"{at}mlp.gate_proj.weight", (f, d)
        yield f"{at}mlp.up_proj.weight", (f, d)
        yield f"{at}mlp.down_proj.weight", (d, f)
        yield f"{at}input_layernorm.weight", (d,)
        yield f"{at}post_attention_layernorm.weight", (d,)
    yield "model.norm.weight", (d,)
    yield "lm_head.weight", (v, d)


def write_model(folder):
    """A random llama of about 470 MB, written without holding it in memory."""
    folder.mkdir()
    config = dict(SHAPE, model_type="llama", max_position_embeddings=4096, torch_dtype="bfloat16")
    (folder / "config.json").write_text(json.dumps(config))
    header, at = {}, 0
    for name, shape in tensors():
        size = 2 * int(np.prod(shape))
        header[name] = dict(dtype="BF16", shape=shape, data_offsets=[at, at + size])
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(0)
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, shape in tensors():
            values = random.standard_normal(shape, np.float32) * (0.03 if len(shape) == 2 else 1)
            out.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    return (folder / "model.safetensors").stat().st_size


def test_peak_memory_stays_near_the_file(hadal, tmp_path):
    size = write_model(tmp_path / "model")
    ids = ",".join(str(7 * i % 16000) for i in range(64))
    command = [str(hadal.program), "logits", str(tmp_path / "model"), "--ids", ids, "--out", str(tmp_path / "x.npy")]
    # The peak of the children of a process of its own: pytest's other children do not count.
    measure = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    result = subprocess.run([sys.executable, "-c", measure, *command], capture_output=True, text=True, check=True)
    peak = int(result.stdout.splitlines()[-1]) * 1024
    assert np.isfinite(np.load(tmp_path / "x.npy")).all()
    assert 0.8 * size < peak < 1.15 * size, f"peak {peak / 1e6:.0f} MB, file {size / 1e6:.0f} MB"
