// What the readers of config.json and of GGUF metadata share: numbers derived from several values, and checks across values.
#pragma once
#include <optional>
#include <string>

#include "model/config.h"

namespace hadal {

// Bounds of what a file may ask for; far above every published model, far below what would overflow.
inline constexpr int64_t largest_dim = int64_t(1) << 24, most_layers = int64_t(1) << 14, most_experts = int64_t(1) << 14;
inline constexpr int64_t longest_context = int64_t(1) << 30;

struct YarnScales {  // absent in the file: absent here
  std::optional<double> mscale, mscale_all_dim;
  std::optional<double> attention_factor;  // replaces the magnitude
  std::optional<double> attn_factor;       // multiplies it
};

// Sets attention_scale and rope.magnitude; everything else of `config` is already set.
void set_attention_scale(ModelConfig& config, const YarnScales& yarn);

// Error names `where`, the key, what was expected and found.
void check_config(const ModelConfig& config, const std::string& where);

}  // namespace hadal
