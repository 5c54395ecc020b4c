#include "model/presets.h"

#include "core/error.h"
#include "model/params.h"

namespace hadal {
namespace {

// Published config.json files, cut to the keys that say the shape and differ from what the family falls back to.
constexpr const char* llm_7b = R"({"model_type": "llama", "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008,
  "num_hidden_layers": 30, "num_attention_heads": 32, "max_position_embeddings": 4096, "bos_token_id": 100000, "eos_token_id": 100001})";
constexpr const char* llm_67b = R"({"model_type": "llama", "vocab_size": 102400, "hidden_size": 8192, "intermediate_size": 22016,
  "num_hidden_layers": 95, "num_attention_heads": 64, "num_key_value_heads": 8, "max_position_embeddings": 4096,
  "bos_token_id": 100000, "eos_token_id": 100001})";
constexpr const char* coder_1b = R"({"model_type": "llama", "vocab_size": 32256, "hidden_size": 2048, "intermediate_size": 5504,
  "num_hidden_layers": 24, "num_attention_heads": 16, "max_position_embeddings": 16384, "rope_theta": 100000,
  "rope_scaling": {"type": "linear", "factor": 4.0}, "bos_token_id": 32013, "eos_token_id": 32014})";
constexpr const char* coder_7b = R"({"model_type": "llama", "vocab_size": 32256, "hidden_size": 4096, "intermediate_size": 11008,
  "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 16384, "rope_theta": 100000,
  "rope_scaling": {"type": "linear", "factor": 4.0}, "bos_token_id": 32013, "eos_token_id": 32014})";
constexpr const char* coder_33b = R"({"model_type": "llama", "vocab_size": 32256, "hidden_size": 7168, "intermediate_size": 19200,
  "num_hidden_layers": 62, "num_attention_heads": 56, "num_key_value_heads": 8, "max_position_embeddings": 16384, "rope_theta": 100000,
  "rope_scaling": {"type": "linear", "factor": 4.0}, "bos_token_id": 32013, "eos_token_id": 32014})";

constexpr const char* distill_qwen_1b = R"({"model_type": "qwen2", "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960,
  "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "max_position_embeddings": 131072, "rope_theta": 10000,
  "bos_token_id": 151646, "eos_token_id": 151643})";
constexpr const char* distill_qwen_7b = R"({"model_type": "qwen2", "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
  "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 131072, "rope_theta": 10000,
  "bos_token_id": 151646, "eos_token_id": 151643})";
constexpr const char* distill_qwen_14b = R"({"model_type": "qwen2", "vocab_size": 152064, "hidden_size": 5120, "intermediate_size": 13824,
  "num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8, "max_position_embeddings": 131072, "rope_theta": 1000000,
  "rms_norm_eps": 1e-5, "bos_token_id": 151646, "eos_token_id": 151643})";
constexpr const char* distill_qwen_32b = R"({"model_type": "qwen2", "vocab_size": 152064, "hidden_size": 5120, "intermediate_size": 27648,
  "num_hidden_layers": 64, "num_attention_heads": 40, "num_key_value_heads": 8, "max_position_embeddings": 131072, "rope_theta": 1000000,
  "rms_norm_eps": 1e-5, "bos_token_id": 151646, "eos_token_id": 151643})";
constexpr const char* distill_llama_8b = R"({"model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
  "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "rope_theta": 500000,
  "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
  "original_max_position_embeddings": 8192}, "rms_norm_eps": 1e-5, "bos_token_id": 128000, "eos_token_id": 128001})";
constexpr const char* distill_llama_70b = R"({"model_type": "llama", "vocab_size": 128256, "hidden_size": 8192, "intermediate_size": 28672,
  "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "max_position_embeddings": 131072, "rope_theta": 500000,
  "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
  "original_max_position_embeddings": 8192}, "rms_norm_eps": 1e-5, "bos_token_id": 128000, "eos_token_id": 128001})";
constexpr const char* r1_0528_qwen3_8b = R"({"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288,
  "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131072,
  "rope_theta": 1000000, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768,
  "attn_factor": 0.8782488562869419}, "bos_token_id": 151643, "eos_token_id": 151645})";

constexpr const char* moe_16b =
    R"({"model_type": "deepseek", "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408,
  "num_hidden_layers": 28, "num_attention_heads": 16, "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6,
  "first_k_dense_replace": 1, "norm_topk_prob": false, "max_position_embeddings": 4096})";
constexpr const char* v2_lite = R"({"model_type": "deepseek_v2", "hidden_size": 2048, "intermediate_size": 10944,
  "moe_intermediate_size": 1408, "num_hidden_layers": 27, "num_attention_heads": 16, "q_lora_rank": null, "n_routed_experts": 64,
  "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1, "topk_method": "greedy", "max_position_embeddings": 163840,
  "rope_scaling": {"type": "yarn", "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096}})";
constexpr const char* v2 = R"({"model_type": "deepseek_v2", "hidden_size": 5120, "intermediate_size": 12288, "moe_intermediate_size": 1536,
  "num_hidden_layers": 60, "num_attention_heads": 128, "n_routed_experts": 160, "n_shared_experts": 2, "num_experts_per_tok": 6,
  "first_k_dense_replace": 1, "topk_method": "group_limited_greedy", "n_group": 8, "topk_group": 3, "routed_scaling_factor": 16.0,
  "max_position_embeddings": 163840,
  "rope_scaling": {"type": "yarn", "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096}})";
constexpr const char* v3 = R"({"model_type": "deepseek_v3", "max_position_embeddings": 163840,
  "rope_scaling": {"type": "yarn", "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096}})";
constexpr const char* v32 = R"({"model_type": "deepseek_v32",
  "rope_scaling": {"type": "yarn", "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096}})";

constexpr const char* smollm2 = R"({"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
  "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "rope_theta": 100000,
  "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2})";

// Shapes without published weights, for the sizes that an article about this family names: 22 B of which 2 % are active, 67 B of which 15
// %.
constexpr const char* article_v2 = R"({"model_type": "deepseek_v3", "vocab_size": 32256, "hidden_size": 1536, "intermediate_size": 4608,
  "moe_intermediate_size": 576, "num_hidden_layers": 16, "num_nextn_predict_layers": 0, "num_attention_heads": 8, "q_lora_rank": null,
  "n_routed_experts": 512, "n_shared_experts": 1, "num_experts_per_tok": 6, "first_k_dense_replace": 0, "n_group": 8, "topk_group": 4,
  "max_position_embeddings": 16384})";
constexpr const char* article_v3 = R"({"model_type": "deepseek_v3", "vocab_size": 32256, "hidden_size": 4096, "intermediate_size": 12288,
  "moe_intermediate_size": 2048, "num_hidden_layers": 40, "num_nextn_predict_layers": 0, "num_attention_heads": 32, "q_lora_rank": 1536,
  "n_routed_experts": 64, "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 0, "n_group": 8, "topk_group": 4,
  "max_position_embeddings": 16384})";

constexpr struct {
  const char *name, *repository, *config;
} published[] = {
    {"llm-7b", "deepseek-ai/deepseek-llm-7b-base", llm_7b},
    {"llm-67b", "deepseek-ai/deepseek-llm-67b-base", llm_67b},
    {"math-7b", "deepseek-ai/deepseek-math-7b-base", llm_7b},
    {"coder-1.3b", "deepseek-ai/deepseek-coder-1.3b-base", coder_1b},
    {"coder-6.7b", "deepseek-ai/deepseek-coder-6.7b-base", coder_7b},
    {"coder-33b", "deepseek-ai/deepseek-coder-33b-base", coder_33b},
    {"coder-7b-v1.5", "deepseek-ai/deepseek-coder-7b-base-v1.5", llm_7b},
    {"moe-16b", "deepseek-ai/deepseek-moe-16b-base", moe_16b},
    {"v2-lite", "deepseek-ai/DeepSeek-V2-Lite", v2_lite},
    {"v2", "deepseek-ai/DeepSeek-V2", v2},
    {"v3", "deepseek-ai/DeepSeek-V3", v3},
    {"v3.2", "deepseek-ai/DeepSeek-V3.2", v32},
    {"r1-distill-qwen-1.5b", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", distill_qwen_1b},
    {"r1-distill-qwen-7b", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", distill_qwen_7b},
    {"r1-distill-qwen-14b", "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", distill_qwen_14b},
    {"r1-distill-qwen-32b", "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", distill_qwen_32b},
    {"r1-distill-llama-8b", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", distill_llama_8b},
    {"r1-distill-llama-70b", "deepseek-ai/DeepSeek-R1-Distill-Llama-70B", distill_llama_70b},
    {"r1-0528-qwen3-8b", "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", r1_0528_qwen3_8b},
    {"smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct", smollm2},
    {"article-v1", "", coder_1b},
    {"article-v2", "", article_v2},
    {"v2-22b", "", article_v2},
    {"article-v3", "", article_v3},
};

struct Count {  // stands where a weight would: how many values it has
  int64_t values = 0;
};

int64_t sum(const Mlp<Count>& mlp) { return mlp.gate.values + mlp.up.values + mlp.down.values; }

}  // namespace

const std::vector<Preset>& presets() {
  static const std::vector<Preset> all = [] {
    std::vector<Preset> v;
    for (const auto& p : published) v.push_back({p.name, p.repository, parse_config(p.config, "", std::string("preset ") + p.name)});
    return v;
  }();
  return all;
}

const ModelConfig& preset(const std::string& name) {
  std::string names;
  for (const Preset& p : presets()) {
    if (p.name == name) return p.config;
    names += (names.empty() ? "" : ", ") + p.name;
  }
  throw Error("no preset is called \"{}\"; there are {}", name, names);
}

ParameterCount count_parameters(const ModelConfig& config) {
  Params<Count> params = make_params<Count>(config);
  ParameterCount count;
  for_each_param(config, params, [&](const std::string&, Shape shape, Role, Count& param) {
    param.values = shape.rows * shape.cols;
    count.total += param.values;
  });
  count.active = count.total - (config.tied_head ? 0 : params.embed.values - config.dim);
  for (const Block<Count>& block : params.blocks)
    if (const auto* moe = std::get_if<Moe<Count>>(&block.ffn))
      for (int64_t e = config.moe.active; e < config.moe.experts; ++e) count.active -= sum(moe->experts[size_t(e)]);
  return count;
}

}  // namespace hadal
