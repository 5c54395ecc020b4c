"""A model as a GGUF file, laid out as llama.cpp's converter lays it out (convert_hf_to_gguf.py and gguf-py, llama.cpp)."""

import re

import gguf
import numpy as np
import tokenizer
import torch
from reference import rope_frequencies

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_kv_b",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}
# Where the scale and the offset (f16) of a block of 256 stand, in bytes, and the offset in scales that centres uniform codes on zero.
K_FIELDS = {"Q2_K": (80, 82, 1.5), "Q3_K": (108, None, 0), "Q4_K": (0, 2, 7.5), "Q5_K": (0, 2, 15.5), "Q6_K": (208, None, 0)}


def random_blocks(kind, rows, cols, rng):
    """The gguf package cannot quantise to K types: draw the codes themselves, scaled to deviation 1 / sqrt(cols)."""
    type_ = gguf.GGMLQuantizationType[kind]
    values, size = gguf.GGML_QUANT_SIZES[type_]
    raw = rng.integers(0, 256, (rows * cols // values, size), dtype=np.uint8)
    scale_at, offset_at, offset = K_FIELDS[kind]
    spread = rng.uniform(0.8, 1.25, raw.shape[0])

    def set_scales(factor):
        raw[:, scale_at : scale_at + 2] = (factor * spread).astype(np.float16)[:, None].view(np.uint8)
        if offset_at is not None:
            raw[:, offset_at : offset_at + 2] = (factor * offset * spread).astype(np.float16)[:, None].view(np.uint8)
        return gguf.quants.dequantize(raw.reshape(rows, -1), type_)

    return raw.reshape(rows, -1), set_scales(1e-3 * cols**-0.5 / set_scales(1e-3).std())


def permuted(tensor, heads):
    """llama.cpp rotates neighbours in llama models: rows (i, i + d/2) of a head come to lie side by side."""
    return tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def unpermuted(tensor, heads):
    return tensor.reshape(heads, tensor.shape[0] // heads // 2, 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def type_of(case, name, tensor):
    if tensor.ndim == 1 or name.endswith("mlp.gate.weight"):
        return "F32"
    if isinstance(case.dtype, str):
        return case.dtype
    return next(kind for ending, kind in case.dtype.items() if name.endswith(ending))


def quantize(kind, tensor, rng):
    """Bytes of the file, and the float32 values they mean."""
    if kind in K_FIELDS:
        return random_blocks(kind, *tensor.shape, rng)
    raw = gguf.quants.quantize(np.ascontiguousarray(tensor), gguf.GGMLQuantizationType[kind])
    return raw, gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind]).reshape(tensor.shape)


def store(case, tensors, seed):
    """[(name in the file, type, bytes)] and the float32 values they mean under their published names."""
    c, rng = case.config, np.random.default_rng(seed)
    stored, meant, experts = [], {}, {}
    heads = {"q_proj": c["num_attention_heads"], "k_proj": c["num_key_value_heads"]}
    for name, tensor in tensors.items():
        tensor = tensor.numpy()
        kind = type_of(case, name, tensor)
        permute = heads.get(name.split(".")[-2]) if c["model_type"] == "llama" else None
        if permute:
            tensor = permuted(tensor, permute)
        if name.endswith("kv_b_proj.weight") and case.split_kv:
            at = name.split(".")[2]
            nope, value = c["qk_nope_head_dim"], c["v_head_dim"]
            halves = tensor.reshape(c["num_attention_heads"], nope + value, -1)
            k_raw, k = quantize(kind, np.ascontiguousarray(halves[:, :nope].swapaxes(1, 2)), rng)
            v_raw, v = quantize(kind, np.ascontiguousarray(halves[:, nope:]), rng)
            stored += [(f"blk.{at}.attn_k_b.weight", kind, k_raw), (f"blk.{at}.attn_v_b.weight", kind, v_raw)]
            meant[name] = np.concatenate((k.swapaxes(1, 2), v), 1).reshape(tensor.shape)
            continue
        raw, values = quantize(kind, tensor, rng)
        meant[name] = unpermuted(values, permute) if permute else values
        expert = re.match(r"model\.layers\.(\d+)\.mlp\.experts\.\d+\.(gate|up|down)_proj", name)
        if expert:
            experts.setdefault((f"blk.{expert[1]}.ffn_{expert[2]}_exps.weight", kind), []).append(raw)
        else:
            stored.append((file_name(name), kind, raw))
    stored += [(name, kind, np.stack(parts)) for (name, kind), parts in experts.items()]
    if c["model_type"] == "llama" and c.get("rope_scaling"):
        dim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
        (plain, _), (scaled, _) = rope_frequencies(c | {"rope_scaling": None}, dim), rope_frequencies(c, dim)
        stored.append(("rope_freqs.weight", "F32", (plain / scaled).float().numpy()))
    return stored, {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in meant.items()}


def file_name(name):
    top = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
    if name in top:
        return top[name]
    layer, rest = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", name).groups()
    if rest == "mlp.gate.e_score_correction_bias":
        return f"blk.{layer}.exp_probs_b.bias"
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[module]}.{kind}"


def write(case, stored, path):
    c = case.config
    family = "deepseek2" if "kv_lora_rank" in c else c["model_type"]
    writer = gguf.GGUFWriter(path, family)
    writer.add_name(case.name)
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(1 if case.split_kv else c["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_rope_freq_base(c["rope_theta"])
    writer.add_vocab_size(c["vocab_size"])
    if family == "deepseek2":
        add_latent(writer, case)
    elif "head_dim" in c:
        writer.add_key_length(c["head_dim"])
        writer.add_value_length(c["head_dim"])
    if family == "llama":
        writer.add_rope_dimension_count(c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"])
    tokenizer.write_gguf(writer, case.tokenizer)
    for name, kind, raw in stored:
        type_ = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, raw, raw_dtype=None if kind in ("F32", "F16") else type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_latent(writer, case):
    c = case.config
    nope_and_rope = c["qk_nope_head_dim"] + c["qk_rope_head_dim"]
    if c["q_lora_rank"]:
        writer.add_q_lora_rank(c["q_lora_rank"])
    writer.add_kv_lora_rank(c["kv_lora_rank"])
    if case.split_kv:
        writer.add_key_length(c["kv_lora_rank"] + c["qk_rope_head_dim"])
        writer.add_value_length(c["kv_lora_rank"])
        writer.add_key_length_mla(nope_and_rope)
        writer.add_value_length_mla(c["v_head_dim"])
    else:
        writer.add_key_length(nope_and_rope)
        writer.add_value_length(c["v_head_dim"])
    writer.add_rope_dimension_count(c["qk_rope_head_dim"])
    writer.add_leading_dense_block_count(c["first_k_dense_replace"])
    writer.add_expert_feed_forward_length(c["moe_intermediate_size"])
    writer.add_expert_count(c["n_routed_experts"])
    writer.add_expert_used_count(c["num_experts_per_tok"])
    writer.add_expert_shared_count(c["n_shared_experts"])
    writer.add_expert_weights_scale(c["routed_scaling_factor"])
    writer.add_expert_weights_norm(c["norm_topk_prob"])
    if c["scoring_func"] == "sigmoid":
        writer.add_expert_group_count(c["n_group"])
        writer.add_expert_group_used_count(c["topk_group"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType[c["scoring_func"].upper()])
    scaling = c["rope_scaling"]
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(scaling["factor"])
    writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    writer.add_rope_scaling_yarn_log_mul(0.1 * scaling["mscale_all_dim"])
