"""Published shapes as GGUF files with random weights, written straight as quantised blocks: for speed and memory, not for sense.

  shapes.py coder-1.3b SmolLM2-135M-Instruct.Q4_1.gguf OUT.gguf

Matrices are Q4_0, the output matrix Q6_K, as llama.cpp's own Q4_0 files are; norms and routers F32. Vocabulary and merges are those of the
GGUF named second, cut or filled up to the shape's size.
"""

import os
import pathlib
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

DENSE = dict(vocab=32256, dim=2048, ffn=5504, layers=24, heads=16, head_dim=128, context=16384)
LATENT = dict(
    vocab=102400, dim=2048, ffn=10944, layers=27, heads=16, context=163840,
    kv_rank=512, nope=128, rope=64, value=128, experts=64, active=6, shared=2, expert_ffn=1408,
)  # fmt: skip
CHUNK = 64 << 20


class Blocks:
    """Random quantised blocks whose values have the deviation 1 / sqrt(columns)."""

    def __init__(self):
        self.random = np.random.default_rng(1)
        self.noise = self.random.integers(0, 256, CHUNK + (1 << 20), dtype=np.uint8)

    def _bytes(self, count):
        start = int(self.random.integers(0, 1 << 20))
        return self.noise[start : start + count]

    def q4_0(self, count, cols):  # half d, 16 bytes of two codes each; a value is (code - 8) * d
        block = np.empty((count, 18), np.uint8)
        block[:, :2] = np.frombuffer(np.float16(1 / (4.6 * cols**0.5)).tobytes(), np.uint8)
        block[:, 2:] = self._bytes(count * 16).reshape(count, 16)
        return block

    def q6_k(self, count, cols):  # 192 bytes of codes, 16 scales, half d; a value is (code - 32) * scale * d
        block = np.empty((count, 210), np.uint8)
        block[:, :192] = self._bytes(count * 192).reshape(count, 192)
        block[:, 192:208] = 16
        block[:, 208:] = np.frombuffer(np.float16(1 / (18.5 * 16 * cols**0.5)).tobytes(), np.uint8)
        return block

    def write(self, file, type, values, cols):
        per_block, make = {Type.Q4_0: (32, self.q4_0), Type.Q6_K: (256, self.q6_k)}[type]
        blocks, step = values // per_block, CHUNK // 192
        for first in range(0, blocks, step):
            make(min(step, blocks - first), cols).tofile(file)


def dense_tensors(s):
    yield "token_embd.weight", (s["vocab"], s["dim"]), Type.Q4_0
    for layer in range(s["layers"]):
        at = f"blk.{layer}."
        yield at + "attn_norm.weight", (s["dim"],), Type.F32
        for part in ("q", "k", "v"):
            yield f"{at}attn_{part}.weight", (s["heads"] * s["head_dim"], s["dim"]), Type.Q4_0
        yield at + "attn_output.weight", (s["dim"], s["heads"] * s["head_dim"]), Type.Q4_0
        yield at + "ffn_norm.weight", (s["dim"],), Type.F32
        yield at + "ffn_gate.weight", (s["ffn"], s["dim"]), Type.Q4_0
        yield at + "ffn_up.weight", (s["ffn"], s["dim"]), Type.Q4_0
        yield at + "ffn_down.weight", (s["dim"], s["ffn"]), Type.Q4_0
    yield "output_norm.weight", (s["dim"],), Type.F32
    yield "output.weight", (s["vocab"], s["dim"]), Type.Q6_K


def latent_tensors(s):
    dim, heads = s["dim"], s["heads"]
    yield "token_embd.weight", (s["vocab"], dim), Type.Q4_0
    for layer in range(s["layers"]):
        at = f"blk.{layer}."
        yield at + "attn_norm.weight", (dim,), Type.F32
        yield at + "attn_q.weight", (heads * (s["nope"] + s["rope"]), dim), Type.Q4_0
        yield at + "attn_kv_a_mqa.weight", (s["kv_rank"] + s["rope"], dim), Type.Q4_0
        yield at + "attn_kv_a_norm.weight", (s["kv_rank"],), Type.F32
        yield at + "attn_k_b.weight", (heads, s["kv_rank"], s["nope"]), Type.Q4_0
        yield at + "attn_v_b.weight", (heads, s["value"], s["kv_rank"]), Type.Q4_0
        yield at + "attn_output.weight", (dim, heads * s["value"]), Type.Q4_0
        yield at + "ffn_norm.weight", (dim,), Type.F32
        if layer == 0:
            widths = (("", (), s["ffn"]),)
        else:
            yield at + "ffn_gate_inp.weight", (s["experts"], dim), Type.F32
            widths = (("_exps", (s["experts"],), s["expert_ffn"]), ("_shexp", (), s["shared"] * s["expert_ffn"]))
        for suffix, count, width in widths:
            yield f"{at}ffn_gate{suffix}.weight", (*count, width, dim), Type.Q4_0
            yield f"{at}ffn_up{suffix}.weight", (*count, width, dim), Type.Q4_0
            yield f"{at}ffn_down{suffix}.weight", (*count, dim, width), Type.Q4_0
    yield "output_norm.weight", (dim,), Type.F32
    yield "output.weight", (s["vocab"], dim), Type.Q6_K


def describe_dense(w, s):
    w.add_head_count(s["heads"])
    w.add_head_count_kv(s["heads"])
    w.add_key_length(s["head_dim"])
    w.add_value_length(s["head_dim"])
    w.add_rope_dimension_count(s["head_dim"])
    w.add_rope_freq_base(100000.0)
    w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    w.add_rope_scaling_factor(4.0)


def describe_latent(w, s):  # as llama.cpp's converter writes it: one key head, the latent
    w.add_head_count(s["heads"])
    w.add_head_count_kv(1)
    w.add_kv_lora_rank(s["kv_rank"])
    w.add_key_length(s["kv_rank"] + s["rope"])
    w.add_value_length(s["kv_rank"])
    w.add_key_length_mla(s["nope"] + s["rope"])
    w.add_value_length_mla(s["value"])
    w.add_rope_dimension_count(s["rope"])
    w.add_rope_freq_base(10000.0)
    w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    w.add_rope_scaling_factor(40.0)
    w.add_rope_scaling_orig_ctx_len(4096)
    w.add_rope_scaling_yarn_log_mul(0.0707)
    w.add_leading_dense_block_count(1)
    w.add_expert_count(s["experts"])
    w.add_expert_used_count(s["active"])
    w.add_expert_shared_count(s["shared"])
    w.add_expert_feed_forward_length(s["expert_ffn"])
    w.add_expert_weights_scale(1.0)
    w.add_expert_weights_norm(False)
    w.add_expert_gating_func(gguf.ExpertGatingFuncType.SOFTMAX)


SHAPES = {
    "coder-1.3b": ("llama", DENSE, dense_tensors, describe_dense),
    "v2-lite": ("deepseek2", LATENT, latent_tensors, describe_latent),
}


def add_tokenizer(w, source, vocab):
    fields = gguf.GGUFReader(source).fields
    known = fields["tokenizer.ggml.tokens"].contents()[:vocab]
    types = fields["tokenizer.ggml.token_type"].contents()[:vocab]
    whole = set(known)
    merges = [m for m in fields["tokenizer.ggml.merges"].contents() if "".join(m.split(" ")) in whole]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(fields["tokenizer.ggml.pre"].contents())
    w.add_token_list(known + [f"<filler {i}>" for i in range(len(known), vocab)])
    w.add_token_types(types + [int(gguf.TokenType.USER_DEFINED)] * (vocab - len(known)))
    w.add_token_merges(merges)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)


def write(name, tokenizer, out):
    arch, s, tensors, describe = SHAPES[name]
    w = gguf.GGUFWriter(None, arch)
    w.add_name(f"{name}, random")
    w.add_context_length(s["context"])
    w.add_embedding_length(s["dim"])
    w.add_block_count(s["layers"])
    w.add_feed_forward_length(s["ffn"])
    w.add_layer_norm_rms_eps(1e-6)
    w.add_vocab_size(s["vocab"])
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    describe(w, s)
    add_tokenizer(w, tokenizer, s["vocab"])
    listed = list(tensors(s))
    for tensor, shape, type in listed:
        block, size = gguf.GGML_QUANT_SIZES[type]
        stored = shape if type == Type.F32 else (*shape[:-1], shape[-1] // block * size)
        kind = np.dtype(np.float32 if type == Type.F32 else np.uint8)
        w.add_tensor_info(tensor, stored, kind, int(np.prod(stored)) * kind.itemsize, raw_dtype=type)
    part = pathlib.Path(f"{out}.part")
    w.write_header_to_file(part)
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    blocks = Blocks()
    file = w.fout[0]
    w.write_padding(file, file.tell())
    for tensor, shape, type in listed:
        if type == Type.F32:
            spread = 0 if len(shape) == 1 else shape[-1] ** -0.5
            (int(len(shape) == 1) + spread * blocks.random.standard_normal(shape, np.float32)).astype(np.float32).tofile(file)
        else:
            blocks.write(file, type, int(np.prod(shape)), shape[-1])
        w.write_padding(file, file.tell())
    w.close()
    os.replace(part, out)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in SHAPES:
        sys.exit(__doc__)
    write(*sys.argv[1:])
