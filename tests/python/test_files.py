"""Files that the published packages write, read back by hadal: the same names, types, shapes and values, to the last bit."""

import collections
import os
import pathlib
import subprocess

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
gguf = pytest.importorskip("gguf")

ROOT = pathlib.Path(__file__).parents[2]
DUMP = pathlib.Path(os.environ.get("HADAL_DUMP_TENSORS", ROOT / "build" / "release" / "dump_tensors"))
NAMES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
SHAPES = [(), (0,), (1,), (7, 8), (15, 16, 17), (127,), (3, 1, 5)]


def dump(path, folder):
    """{name: (type, shape, float32 values)} of a checkpoint as hadal opens it."""
    assert DUMP.exists(), f"{DUMP} is not built (script/build)"
    out = folder / "values.f32"
    done = subprocess.run([DUMP, path, out], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    values, tensors, at = np.fromfile(out, np.float32), {}, 0
    for line in done.stdout.splitlines():
        name, kind, *sides = line.split()
        shape = tuple(map(int, sides))
        count = int(np.prod(shape))
        tensors[name] = (kind, shape, values[at : at + count].reshape(shape))
        at += count
    assert at == values.size
    return tensors


def error(path, folder):
    done = subprocess.run([DUMP, path, folder / "values.f32"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    return done.stderr


def random_tensors():
    generator = torch.Generator().manual_seed(5)
    tensors = {}
    for dtype in NAMES:
        for shape in SHAPES:
            drawn = torch.randn(shape, generator=generator) * 10
            tensors[f"{NAMES[dtype]}.{'x'.join(map(str, shape))}"] = (drawn > 0) if dtype == torch.bool else drawn.abs().to(dtype)
    return tensors


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        kind, shape, values = found[name]
        assert (kind, shape) == (NAMES[tensor.dtype], tuple(tensor.shape)), name
        np.testing.assert_array_equal(values, tensor.detach().to(torch.float32).numpy(), err_msg=name)


def test_safetensors(tmp_path):
    safetensors_torch.save_file(random_tensors(), tmp_path / "model.safetensors", {"format": "pt"})
    assert_same(dump(tmp_path, tmp_path), random_tensors())


def test_torch_bin(tmp_path):
    torch.save(random_tensors(), tmp_path / "pytorch_model.bin")
    assert_same(dump(tmp_path, tmp_path), random_tensors())


def test_torch_bin_of_a_module(tmp_path):
    module = torch.nn.Sequential(torch.nn.Embedding(5, 7), torch.nn.Linear(7, 3), torch.nn.LayerNorm(3))
    torch.save(module.state_dict(), tmp_path / "pytorch_model.bin")
    assert_same(dump(tmp_path, tmp_path), module.state_dict())
    torch.save({"epoch": 3, "loss": 0.25, "state_dict": dict(module.named_parameters())}, tmp_path / "pytorch_model.bin")
    assert_same(dump(tmp_path, tmp_path), dict(module.named_parameters()))


def test_torch_bin_keeps_strides_and_shared_storages(tmp_path):
    base = torch.arange(120, dtype=torch.float32)
    cube = base.reshape(4, 5, 6)
    views = {
        "whole": base, "transposed": cube.permute(2, 0, 1), "part": cube[1:3, :, 2:], "every_second": base[::2],
        "repeated": base[:3].expand(4, 3), "one_row": cube[2, 3], "column": cube[:, 0, 0],
    }  # fmt: skip
    torch.save(collections.OrderedDict(views), tmp_path / "pytorch_model.bin")
    assert_same(dump(tmp_path, tmp_path), views)


def test_torch_bin_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"w": torch.zeros(2), "evil": Evil()}, tmp_path / "pytorch_model.bin")
    assert "posix.system, which is no tensor: loading it would run code" in error(tmp_path, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_older_torch_files_say_what_to_do(tmp_path):
    torch.save({"w": torch.zeros(2)}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert "torch.save(torch.load(path), path)" in error(tmp_path, tmp_path)


def test_doubles_are_refused_by_name(tmp_path):
    torch.save({"w": torch.zeros(2, dtype=torch.float64)}, tmp_path / "pytorch_model.bin")
    assert "tensor w: type DoubleStorage is not supported" in error(tmp_path, tmp_path)


def quantised(kind, shape, rng):
    """Blocks as the package makes them, or, where it cannot, random ones with plain scales."""
    type_ = gguf.GGMLQuantizationType[kind]
    try:
        return gguf.quants.quantize(rng.normal(size=shape).astype(np.float32), type_)
    except NotImplementedError:
        values, size = gguf.GGML_QUANT_SIZES[type_]
        raw = rng.integers(0, 256, (int(np.prod(shape)) // values, size), dtype=np.uint8)
        halves = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}[kind]
        for at in halves:
            raw[:, at : at + 2] = rng.normal(size=len(raw)).astype(np.float16)[:, None].view(np.uint8)
        return raw.reshape(*shape[:-1], -1)


def write_gguf(path, tensors):
    """tensors: {name: (type, array of blocks or values)}"""
    writer = gguf.GGUFWriter(path, "deepseek2")
    for name, (kind, data) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf(tmp_path):
    rng = np.random.default_rng(3)
    kinds = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
    tensors = {f"blk.{i}.ffn_up.weight": (kind, quantised(kind, (5, 512), rng)) for i, kind in enumerate(kinds)}
    write_gguf(tmp_path / "model.gguf", tensors)
    found = dump(tmp_path / "model.gguf", tmp_path)
    assert len(found) == len(kinds)
    for i, kind in enumerate(kinds):
        expected = gguf.quants.dequantize(tensors[f"blk.{i}.ffn_up.weight"][1], gguf.GGMLQuantizationType[kind])
        found_kind, shape, values = found[f"model.layers.{i}.mlp.up_proj.weight"]
        assert (found_kind, shape) == (kind, (5, 512))
        np.testing.assert_array_equal(values, expected, err_msg=kind)


@pytest.mark.parametrize(("k_kind", "v_kind", "joined_kind"), [("F32", "F32", "F32"), ("BF16", "BF16", "BF16"), ("Q8_0", "Q4_K", "F32"), ("F16", "F32", "F32")])
def test_gguf_halves_of_kv_b(tmp_path, k_kind, v_kind, joined_kind):
    heads, nope, v_dim, rank = 3, 32, 24, 512
    rng = np.random.default_rng(4)
    k, v = quantised(k_kind, (heads, rank, nope), rng), quantised(v_kind, (heads, v_dim, rank), rng)
    write_gguf(tmp_path / "model.gguf", {"blk.0.attn_k_b.weight": (k_kind, k), "blk.0.attn_v_b.weight": (v_kind, v)})
    k_values = gguf.quants.dequantize(k, gguf.GGMLQuantizationType[k_kind]).reshape(heads, rank, nope)
    v_values = gguf.quants.dequantize(v, gguf.GGMLQuantizationType[v_kind]).reshape(heads, v_dim, rank)
    expected = np.concatenate([k_values.transpose(0, 2, 1), v_values], axis=1).reshape(-1, rank)
    kind, shape, values = dump(tmp_path / "model.gguf", tmp_path)["model.layers.0.self_attn.kv_b_proj.weight"]
    assert (kind, shape) == (joined_kind, expected.shape)
    np.testing.assert_array_equal(values, expected)


def test_gguf_experts(tmp_path):
    rng = np.random.default_rng(6)
    stack = quantised("Q5_1", (5, 7, 64), rng)
    write_gguf(tmp_path / "model.gguf", {"blk.1.ffn_down_exps.weight": ("Q5_1", stack)})
    found = dump(tmp_path / "model.gguf", tmp_path)
    expected = gguf.quants.dequantize(stack, gguf.GGMLQuantizationType.Q5_1)
    assert len(found) == 5
    for e in range(5):
        np.testing.assert_array_equal(found[f"model.layers.1.mlp.experts.{e}.down_proj.weight"][2], expected[e])
