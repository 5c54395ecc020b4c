// What a configuration is to Python: a dictionary under the names of hadal.Config.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "model/presets.h"

namespace hadal {

inline nanobind::dict numbers_of(const ModelConfig& c, const std::vector<int32_t>& end_tokens) {
  const ParameterCount count = count_parameters(c);
  nanobind::dict out;
  const auto put = [&](const char* key, auto value) { out[key] = nanobind::cast(value); };
  put("family", c.family), put("vocab", c.vocab), put("dim", c.dim), put("layers", c.layers), put("heads", c.heads);
  put("kv_heads", c.kv_heads), put("head_dim", c.q_dim()), put("context", c.context), put("ffn_dim", c.ffn_dim);
  put("attention", std::string(c.attention == AttentionKind::mla ? "mla" : "gqa")), put("kv_rank", c.kv_rank);
  put("experts", c.moe.experts), put("active_experts", c.moe.active), put("shared_experts", c.moe.shared);
  put("expert_dim", c.moe.expert_dim), put("rope_theta", double(c.rope.theta)), put("norm_eps", double(c.norm_eps));
  put("parameters", count.total), put("active_parameters", count.active), put("tied_head", c.tied_head);
  put("begin_token", c.begin_token), put("end_tokens", end_tokens);
  return out;
}

}  // namespace hadal
