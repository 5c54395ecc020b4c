"""Random weights for a config under their published names, and the rounding that storing them in a smaller type does."""

import torch

FP8_BLOCK = 128


def shapes(config, draft=False):
    """Published name -> shape, in checkpoint order."""
    c, dim, out = config, config["hidden_size"], {}
    family, heads = c["model_type"], c["num_attention_heads"]

    def mlp(at, hidden):
        out[at + "gate_proj.weight"] = (hidden, dim)
        out[at + "up_proj.weight"] = (hidden, dim)
        out[at + "down_proj.weight"] = (dim, hidden)

    def gqa(at):
        head_dim = c.get("head_dim") or dim // heads
        rows = {"q_proj": heads * head_dim, "k_proj": c["num_key_value_heads"] * head_dim, "v_proj": c["num_key_value_heads"] * head_dim}
        for name, count in rows.items():
            out[f"{at}{name}.weight"] = (count, dim)
            if family == "qwen2" or c.get("attention_bias"):
                out[f"{at}{name}.bias"] = (count,)
        out[at + "o_proj.weight"] = (dim, heads * head_dim)
        if c.get("attention_bias"):
            out[at + "o_proj.bias"] = (dim,)
        if family == "qwen3":
            out[at + "q_norm.weight"] = out[at + "k_norm.weight"] = (head_dim,)

    def mla(at):
        q_rows = heads * (c["qk_nope_head_dim"] + c["qk_rope_head_dim"])
        if c["q_lora_rank"]:
            out[at + "q_a_proj.weight"] = (c["q_lora_rank"], dim)
            out[at + "q_a_layernorm.weight"] = (c["q_lora_rank"],)
            out[at + "q_b_proj.weight"] = (q_rows, c["q_lora_rank"])
        else:
            out[at + "q_proj.weight"] = (q_rows, dim)
        out[at + "kv_a_proj_with_mqa.weight"] = (c["kv_lora_rank"] + c["qk_rope_head_dim"], dim)
        out[at + "kv_a_layernorm.weight"] = (c["kv_lora_rank"],)
        out[at + "kv_b_proj.weight"] = (heads * (c["qk_nope_head_dim"] + c["v_head_dim"]), c["kv_lora_rank"])
        out[at + "o_proj.weight"] = (dim, heads * c["v_head_dim"])
        if family == "deepseek_v32":
            out[at + "indexer.wq_b.weight"] = (c["index_n_heads"] * c["index_head_dim"], c["q_lora_rank"])
            out[at + "indexer.wk.weight"] = (c["index_head_dim"], dim)
            out[at + "indexer.k_norm.weight"] = out[at + "indexer.k_norm.bias"] = (c["index_head_dim"],)
            out[at + "indexer.weights_proj.weight"] = (c["index_n_heads"], dim)

    def block(layer):
        at = f"model.layers.{layer}."
        out[at + "input_layernorm.weight"] = (dim,)
        (mla if "kv_lora_rank" in c else gqa)(at + "self_attn.")
        out[at + "post_attention_layernorm.weight"] = (dim,)
        moe = c.get("n_routed_experts") and layer >= c["first_k_dense_replace"] and layer % c["moe_layer_freq"] == 0
        if not moe:
            return mlp(at + "mlp.", c["intermediate_size"])
        out[at + "mlp.gate.weight"] = (c["n_routed_experts"], dim)
        if c["scoring_func"] == "sigmoid":
            out[at + "mlp.gate.e_score_correction_bias"] = (c["n_routed_experts"],)
        for expert in range(c["n_routed_experts"]):
            mlp(f"{at}mlp.experts.{expert}.", c["moe_intermediate_size"])
        mlp(at + "mlp.shared_experts.", c["n_shared_experts"] * c["moe_intermediate_size"])

    out["model.embed_tokens.weight"] = (c["vocab_size"], dim)
    for layer in range(c["num_hidden_layers"]):
        block(layer)
    out["model.norm.weight"] = (dim,)
    if not c["tie_word_embeddings"]:
        out["lm_head.weight"] = (c["vocab_size"], dim)
    if draft:
        layer = c["num_hidden_layers"]
        at = f"model.layers.{layer}."
        out[at + "embed_tokens.weight"] = out[at + "shared_head.head.weight"] = (c["vocab_size"], dim)
        out[at + "enorm.weight"] = out[at + "hnorm.weight"] = out[at + "shared_head.norm.weight"] = (dim,)
        out[at + "eh_proj.weight"] = (dim, 2 * dim)
        block(layer)
    return out


def draw(config, seed, draft=False):
    """Matrices with deviation 1 / sqrt(inputs), so that every part of the model moves the logits; norms around 1; biases that matter."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes(config, draft).items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("embed_tokens.weight"):
            tensors[name] = noise if not config["tie_word_embeddings"] else noise * shape[-1] ** -0.5
        elif name.endswith("e_score_correction_bias"):
            tensors[name] = 0.2 * noise
        elif name.endswith(".bias"):
            tensors[name] = 0.5 * noise
        elif len(shape) == 1:
            tensors[name] = 1 + 0.2 * noise
        else:
            tensors[name] = noise * shape[-1] ** -0.5
    return tensors


def is_fp8(name, tensor):
    """What DeepSeek publishes in FP8: the projections; not embeddings, head, norms or router."""
    return tensor.dim() == 2 and "_proj" in name and not name.endswith("weights_proj.weight")


def blocks(rows, cols):
    return [(slice(r, r + FP8_BLOCK), slice(c, c + FP8_BLOCK)) for r in range(0, rows, FP8_BLOCK) for c in range(0, cols, FP8_BLOCK)]


def to_fp8(tensor):
    """The tensor in F8_E4M3 with one scale for each block of 128 x 128, and the values they stand for."""
    rows, cols = tensor.shape
    scale = torch.empty(-(-rows // FP8_BLOCK), -(-cols // FP8_BLOCK))
    stored, meant = torch.empty(rows, cols, dtype=torch.float8_e4m3fn), torch.empty(rows, cols)
    for index, block in enumerate(blocks(rows, cols)):
        factor = tensor[block].abs().max() / 448
        scale.view(-1)[index] = factor
        stored[block] = (tensor[block] / factor).to(torch.float8_e4m3fn)
        meant[block] = stored[block].float() * factor
    return stored, scale, meant


def store(tensors, dtype):
    """What goes into a file of that type, and the float32 values it means; both by name."""
    kept_f32 = lambda name: name.endswith("e_score_correction_bias")
    if dtype == "FP8":
        files, meant = {}, {}
        for name, tensor in tensors.items():
            if is_fp8(name, tensor):
                files[name], files[name + "_scale_inv"], meant[name] = to_fp8(tensor)
            else:
                files[name] = tensor if kept_f32(name) else tensor.bfloat16()
                meant[name] = files[name].float()
        return files, meant
    kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    files = {name: tensor if kept_f32(name) else tensor.to(kind) for name, tensor in tensors.items()}
    return files, {name: tensor.float() for name, tensor in files.items()}
