#include "model/part_names.h"

#include <charconv>

namespace hadal {

std::string_view part_of(std::string_view name, int64_t layers) {
  const auto has = [&](std::string_view what) { return name.find(what) != name.npos; };
  constexpr std::string_view prefix = "model.layers.";
  if (name.starts_with("model.embed_tokens.")) return "embedding";
  if (name.starts_with("lm_head.")) return "head";
  if (name.starts_with(prefix)) {
    int64_t layer = 0;
    std::from_chars(name.data() + prefix.size(), name.data() + name.size(), layer);
    if (layer >= layers) return "draft layers";
  }
  if (has("norm.")) return "norms";
  if (has(".self_attn.")) return "attention";
  if (has(".mlp.experts.")) return "experts";
  if (has(".mlp.shared_experts.")) return "shared experts";
  if (has(".mlp.gate.")) return "router";
  if (has(".mlp.")) return "dense feed-forward";
  return "other";
}

}  // namespace hadal
