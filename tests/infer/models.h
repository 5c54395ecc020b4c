// Small configurations of every kind, for models with random weights.
#pragma once
#include <string>
#include <vector>

#include "model/config.h"

namespace hadal {

struct NamedConfig {
  std::string name;
  ModelConfig config;
};

inline std::vector<NamedConfig> small_configs() {
  ModelConfig gqa;
  gqa.family = "llama";
  gqa.vocab = 97, gqa.dim = 30, gqa.layers = 2, gqa.context = 512, gqa.heads = 3, gqa.kv_heads = 1, gqa.head_dim = 10, gqa.ffn_dim = 45;
  gqa.attention_scale = 0.316f;

  ModelConfig qwen = gqa;
  qwen.family = "qwen3", qwen.qkv_bias = true, qwen.qk_norm = true, qwen.tied_head = true, qwen.kv_heads = 3;

  ModelConfig moe = gqa;
  moe.family = "deepseek", moe.layers = 3, moe.dense_layers = 1;
  moe.moe = {.experts = 5, .active = 2, .shared = 2, .expert_dim = 14};

  ModelConfig mla = moe;
  mla.family = "deepseek_v2", mla.attention = AttentionKind::mla;
  mla.kv_rank = 18, mla.nope_dim = 12, mla.rope_dim = 6, mla.v_dim = 10, mla.rope.layout = RopeLayout::pairs;
  mla.attention_scale = 0.25f;

  ModelConfig v3 = mla;
  v3.family = "deepseek_v32", v3.q_rank = 20, v3.indexer = {.heads = 2, .dim = 8, .keys = 16};
  v3.moe = {.experts = 8,
            .active = 3,
            .shared = 1,
            .expert_dim = 14,
            .groups = 4,
            .active_groups = 2,
            .score = RouterScore::sigmoid,
            .group_score = GroupScore::top2_sum,
            .bias = true,
            .normalize = true,
            .scale = 2.5f};
  return {{"gqa", gqa}, {"qwen", qwen}, {"moe", moe}, {"mla", mla}, {"v32", v3}};
}

}  // namespace hadal
