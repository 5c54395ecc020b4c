#include "model/config_rules.h"

#include <cmath>

#include "core/error.h"

namespace hadal {
namespace {

// The YaRN paper's temperature (arXiv 2309.00071, eq. 22) with DeepSeek's multiplier.
double magnitude(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1; }

struct Check {
  const std::string& where;
  template <class Found>
  void operator()(bool holds, const char* key, const std::string& expected, const Found& found) const {
    if (!holds) throw Error("{}: {}: expected {}, found {}", where, key, expected, found);
  }
};

// Upper bound of the number of parameters, in floating point so that it cannot overflow.
double rough_parameters(const ModelConfig& c) {
  const double dim = double(c.dim), heads = double(c.heads), ffn = 3 * dim * double(c.ffn_dim);
  double attention = 2 * dim * (heads + double(c.kv_heads)) * double(c.head_dim);
  if (c.attention == AttentionKind::mla)
    attention = heads * double(c.q_dim()) * double(c.q_rank > 0 ? c.q_rank : c.dim) + dim * double(c.q_rank + c.kv_rank + c.rope_dim) +
                heads * double(c.nope_dim + c.v_dim) * double(c.kv_rank) + dim * heads * double(c.v_dim) +
                double(c.indexer.heads * c.indexer.dim) * double(c.q_rank);
  const double experts = 3 * dim * double(c.moe.expert_dim) * double(c.moe.experts + c.moe.shared);
  return 2 * double(c.vocab) * dim + double(c.layers) * (attention + ffn + experts);
}

void check_attention(const ModelConfig& c, const Check& check) {
  if (c.attention == AttentionKind::gqa) {
    check(c.heads % c.kv_heads == 0, "num_key_value_heads", fmt::format("a divisor of num_attention_heads ({})", c.heads), c.kv_heads);
    check(c.head_dim % 2 == 0, "head_dim", "an even number, half of which rotates against the other", c.head_dim);
    check(c.heads * c.head_dim <= largest_dim, "head_dim", fmt::format("{} heads of at most {} values in all", c.heads, largest_dim),
          c.head_dim);
    return;
  }
  check(c.rope_dim % 2 == 0, "qk_rope_head_dim", "an even number, half of which rotates against the other", c.rope_dim);
  check(c.heads * (c.nope_dim + c.rope_dim + c.v_dim) <= 2 * largest_dim, "num_attention_heads",
        fmt::format("heads of at most {} values in all", 2 * largest_dim), c.heads);
  if (c.indexer.heads == 0) return;
  check(c.q_rank > 0, "q_lora_rank", "a rank, which the indexer reads its queries from", c.q_rank);
  check(c.indexer.dim >= c.rope_dim, "index_head_dim", fmt::format("at least qk_rope_head_dim ({})", c.rope_dim), c.indexer.dim);
  check(c.indexer.heads * c.indexer.dim <= largest_dim, "index_n_heads", fmt::format("at most {} values in all", largest_dim),
        c.indexer.heads);
}

void check_masks(const ModelConfig& c, const Check& check) {
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    const LayerMask mask = c.mask_of(layer);
    check(mask.window >= 0 && mask.window <= longest_context, "attention_window", fmt::format("0 to {}", longest_context), mask.window);
    check(mask.sinks >= 0 && mask.sinks <= longest_context, "attention_sinks", fmt::format("0 to {}", longest_context), mask.sinks);
    check(mask.top_blocks >= 0 && mask.top_blocks <= longest_context, "attention_topk_blocks", fmt::format("0 to {}", longest_context),
          mask.top_blocks);
    check(mask.sinks == 0 || mask.window > 0 || mask.top_blocks > 0, "attention_sinks", "0 where there is no window", mask.sinks);
    check(c.indexer.heads == 0 || mask == LayerMask{}, "attention_window", "no mask in a model whose indexer chooses the keys",
          mask.window);
  }
}

void check_moe(const ModelConfig& c, const Check& check) {
  const MoeConfig& m = c.moe;
  if (m.experts == 0) return;
  check(c.layers * m.experts <= int64_t(1) << 20, "n_routed_experts",
        fmt::format("at most {} experts over {} layers", int64_t(1) << 20, c.layers), m.experts);
  check(m.active <= m.experts, "num_experts_per_tok", fmt::format("at most n_routed_experts ({})", m.experts), m.active);
  check(!m.expert_choice || m.hash_layers == 0, "num_hash_layers", "0 where topk_method is expert_choice", m.hash_layers);
  check(m.experts % m.groups == 0, "n_group", fmt::format("a divisor of n_routed_experts ({})", m.experts), m.groups);
  check(m.active_groups <= m.groups, "topk_group", fmt::format("at most n_group ({})", m.groups), m.active_groups);
  const int64_t group = m.experts / m.groups;
  check(m.active <= m.active_groups * group, "num_experts_per_tok",
        fmt::format("at most {}, the experts of topk_group ({}) groups of {}", m.active_groups * group, m.active_groups, group), m.active);
  check(m.groups == 1 || m.group_score == GroupScore::best || group >= 2, "n_group",
        "groups of two experts or more, ranked by their best two", m.groups);
}

}  // namespace

void set_attention_scale(ModelConfig& config, const YarnScales& yarn) {
  const bool scaled = config.rope.scaling == RopeScaling::yarn;
  const double factor = config.rope.factor, all_dim = yarn.mscale_all_dim.value_or(0);
  double scale = 1 / std::sqrt(double(config.q_dim()));
  // Only MLA carries the temperature in the softmax scale; elsewhere mscale_all_dim does nothing but divide the magnitude.
  if (scaled && config.attention == AttentionKind::mla) scale *= magnitude(factor, all_dim) * magnitude(factor, all_dim);
  config.attention_scale = float(scale);
  if (!scaled) return;
  const double inferred = magnitude(factor, yarn.mscale.value_or(1)) / magnitude(factor, all_dim);
  config.rope.magnitude = float(yarn.attention_factor.value_or(inferred) * yarn.attn_factor.value_or(1));
}

void check_config(const ModelConfig& c, const std::string& where) {
  const Check check{where};
  check_attention(c, check);
  check_masks(c, check);
  check_moe(c, check);
  const RopeConfig& r = c.rope;
  check(r.scaling != RopeScaling::yarn || r.theta > 1, "rope_theta", "more than 1 (YaRN takes its logarithm)", r.theta);
  check(r.scaling != RopeScaling::llama3 || r.high_frequency > r.low_frequency, "high_freq_factor",
        fmt::format("more than low_freq_factor ({})", r.low_frequency), r.high_frequency);
  check(std::isfinite(c.attention_scale) && c.attention_scale > 0 && std::isfinite(r.magnitude) && r.magnitude > 0, "mscale_all_dim",
        "a scale that leaves attention finite and positive", c.attention_scale);
  check(rough_parameters(c) < 0x1p52, "num_hidden_layers", "a model of less than 2^52 parameters", c.layers);
}

}  // namespace hadal
