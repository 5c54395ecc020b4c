"""The tiny models: one per convention that a published checkpoint of the family has. Sizes are odd on purpose.

layout: safetensors | sharded (with index) | shards (without) | bin | bin_sharded | gguf
tolerance: largest |difference| of a logit that a float32 run of hadal may show against golden.safetensors.
"""

from dataclasses import dataclass

VOCAB, BEGIN, END = 300, 297, 299
EXACT, ROUNDED = 2e-4, 2e-2


@dataclass
class Case:
    name: str
    config: dict
    dtype: str = "F32"  # F32 | F16 | BF16 | FP8; for gguf the type of the matrices, or a dictionary from name ending to type
    layout: str = "safetensors"
    tolerance: float = EXACT
    tokenizer: str = ""  # a GGUF pre-tokenizer name, or "json" for tokenizer.json
    draft: bool = False  # carries a multi-token prediction layer that plain inference skips
    split_kv: bool = False  # gguf: kv_b stored as k_b and v_b, as newer files have it
    small: bool = True  # committed


def dense(family, dim, heads, kv_heads, layers, hidden, **more):
    return {
        "architectures": [{"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[family] + "ForCausalLM"],
        "model_type": family,
        "vocab_size": VOCAB,
        "hidden_size": dim,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
    } | more


def mixture(family, **more):
    return {
        "architectures": ["DeepseekForCausalLM"],
        "model_type": family,
        "vocab_size": VOCAB,
        "hidden_size": 18,
        "intermediate_size": 25,
        "moe_intermediate_size": 7,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "n_routed_experts": 5,
        "n_shared_experts": 2,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "norm_topk_prob": False,
        "scoring_func": "softmax",
        "aux_loss_alpha": 0.001,
        "seq_aux": True,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
    } | more


def yarn(factor, mscale, mscale_all_dim):
    return {
        "type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": 256,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": mscale,
        "mscale_all_dim": mscale_all_dim,
    }


def latent(family, **more):
    return mixture(
        family,
        architectures=[{"deepseek_v2": "DeepseekV2", "deepseek_v3": "DeepseekV3", "deepseek_v32": "DeepseekV32"}[family] + "ForCausalLM"],
        hidden_size=21,
        num_hidden_layers=2,
        max_position_embeddings=2048,
        q_lora_rank=11,
        kv_lora_rank=14,
        qk_nope_head_dim=10,
        qk_rope_head_dim=6,
        v_head_dim=9,
        topk_method="greedy",
        n_group=1,
        topk_group=1,
        routed_scaling_factor=1.0,
    ) | more


def v2_lite(**more):
    return latent("deepseek_v2", q_lora_rank=None, rope_scaling=yarn(8, 0.707, 0.707)) | more


def v2(**more):
    groups = dict(topk_method="group_limited_greedy", n_routed_experts=6, n_group=3, topk_group=2, num_experts_per_tok=3)
    # The latents' own norms keep 1e-6 whatever rms_norm_eps says: here the two are far apart.
    return latent("deepseek_v2", rms_norm_eps=1e-2, routed_scaling_factor=4.0, rope_scaling=yarn(8, 0.9, 0.707), **groups) | more


V3_ROUTER = dict(
    topk_method="noaux_tc",
    scoring_func="sigmoid",
    norm_topk_prob=True,
    routed_scaling_factor=2.5,
    n_routed_experts=8,
    n_shared_experts=1,
    n_group=4,
    topk_group=2,
    num_experts_per_tok=3,
)


def v3(family="deepseek_v3", **more):
    return latent(family, rope_scaling=yarn(40, 1.0, 1.0), max_position_embeddings=10240) | V3_ROUTER | more


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
QWEN2 = dict(use_sliding_window=False, sliding_window=512, max_window_layers=1)
# Rows of blocked types are multiples of 32 (K types: 256) values.
K_TYPES = {
    "q_proj.weight": "Q4_K",
    "k_proj.weight": "Q3_K",
    "v_proj.weight": "Q2_K",
    "o_proj.weight": "Q6_K",
    "gate_proj.weight": "Q2_K",
    "up_proj.weight": "Q5_K",
    "down_proj.weight": "Q5_1",
    "embed_tokens.weight": "Q4_K",
}
BLOCKED_LATENT = dict(
    hidden_size=64,
    intermediate_size=96,
    moe_intermediate_size=32,
    q_lora_rank=32,
    kv_lora_rank=32,
    qk_nope_head_dim=32,
    v_head_dim=32,
)

CASES = [
    Case("llama", dense("llama", 30, 3, 1, 3, 31), tokenizer="json"),
    Case("llama_linear", dense("llama", 18, 3, 3, 2, 29, rope_theta=100000, rope_scaling={"type": "linear", "factor": 4.0}), layout="sharded"),
    Case("llama_llama3", dense("llama", 24, 4, 2, 2, 37, rope_scaling=LLAMA3_ROPE, rms_norm_eps=1e-5), layout="bin_sharded"),
    Case("llama_bias", dense("llama", 18, 3, 1, 2, 29, attention_bias=True), small=False),
    Case("llama_f16", dense("llama", 18, 3, 1, 2, 29), dtype="F16", layout="bin", tolerance=ROUNDED, small=False),
    Case("qwen2", dense("qwen2", 24, 6, 2, 2, 37, rms_norm_eps=1e-5, **QWEN2), layout="shards"),
    Case("qwen2_window", dense("qwen2", 18, 3, 1, 3, 29, use_sliding_window=True, sliding_window=7, max_window_layers=1)),
    Case("qwen2_tied", dense("qwen2", 18, 3, 1, 2, 29, tie_word_embeddings=True, **QWEN2), dtype="BF16", tolerance=ROUNDED),
    Case("qwen3", dense("qwen3", 18, 3, 1, 2, 29, head_dim=14, attention_bias=False), small=False),
    Case(
        "qwen3_yarn",
        dense(
            "qwen3", 18, 3, 1, 2, 29, head_dim=10, attention_bias=False, max_position_embeddings=1024,
            rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "attn_factor": 0.95},
        ),
    ),
    Case("deepseek", mixture("deepseek", moe_layer_freq=2)),
    Case("deepseek_bf16", mixture("deepseek", num_hidden_layers=2), dtype="BF16", tolerance=ROUNDED, small=False),
    Case("deepseek_v2_lite", v2_lite(), tokenizer="json"),
    Case("deepseek_v2_plain", v2_lite(rope_scaling=None), small=False),
    Case("deepseek_v2", v2()),
    Case("deepseek_v2_bf16", v2(), dtype="BF16", tolerance=ROUNDED, small=False),
    Case("deepseek_v3", v3(num_hidden_layers=3), tokenizer="json"),
    Case("deepseek_v3_bf16", v3(num_nextn_predict_layers=1), dtype="BF16", draft=True, layout="sharded", tolerance=ROUNDED),
    Case(
        "deepseek_v3_fp8",
        v3(
            hidden_size=136, intermediate_size=33, kv_lora_rank=130, quantization_config=FP8,
            n_routed_experts=5, n_group=1, topk_group=1, num_experts_per_tok=2, tie_word_embeddings=True,
        ),
        dtype="FP8",
        tolerance=ROUNDED,
    ),
    Case("deepseek_v32", v3("deepseek_v32", index_n_heads=5, index_head_dim=14, index_topk=8)),
    Case("deepseek_v32_bf16", v3("deepseek_v32", index_n_heads=5, index_head_dim=14, index_topk=48), dtype="BF16", tolerance=ROUNDED, small=False),
    Case("llama_bf16", dense("llama", 24, 4, 2, 2, 37, rope_scaling=LLAMA3_ROPE), dtype="BF16", tolerance=ROUNDED, small=False),
    Case("qwen3_bf16", dense("qwen3", 18, 3, 1, 2, 29, head_dim=14), dtype="BF16", tolerance=ROUNDED, small=False),
    Case("gguf_llama", dense("llama", 18, 3, 1, 2, 29), layout="gguf", tokenizer="smollm"),
    Case("gguf_llama3", dense("llama", 24, 4, 2, 2, 29, head_dim=8, rope_scaling=LLAMA3_ROPE), layout="gguf", tokenizer="smollm"),
    Case("gguf_llama_f16", dense("llama", 18, 3, 1, 2, 29), dtype="F16", layout="gguf", tokenizer="smollm", tolerance=ROUNDED, small=False),
    Case("gguf_llama_q4_0", dense("llama", 96, 3, 1, 2, 64), dtype="Q4_0", layout="gguf", tokenizer="smollm", tolerance=ROUNDED),
    Case("gguf_llama_k", dense("llama", 256, 8, 2, 1, 96, tie_word_embeddings=True), dtype=K_TYPES, layout="gguf", tokenizer="smollm", tolerance=ROUNDED),
    Case("gguf_qwen2", dense("qwen2", 18, 3, 1, 2, 29, tie_word_embeddings=True), layout="gguf", tokenizer="qwen2"),
    Case("gguf_qwen2_q5_0", dense("qwen2", 64, 2, 1, 2, 96), dtype="Q5_0", layout="gguf", tokenizer="qwen2", tolerance=ROUNDED, small=False),
    Case("gguf_qwen3", dense("qwen3", 18, 3, 1, 2, 29, head_dim=14), layout="gguf", tokenizer="qwen2", small=False),
    Case("gguf_qwen3_q8_0", dense("qwen3", 64, 3, 1, 2, 32, head_dim=32), dtype="Q8_0", layout="gguf", tokenizer="qwen2", tolerance=ROUNDED),
    Case("gguf_deepseek2_lite", v2_lite(), layout="gguf", tokenizer="deepseek-llm"),
    Case("gguf_deepseek2_v3_q4_1", v3(**BLOCKED_LATENT), dtype="Q4_1", layout="gguf", tokenizer="deepseek-v3", split_kv=True, tolerance=ROUNDED),
]
