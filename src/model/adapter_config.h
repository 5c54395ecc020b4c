// adapter_config.json of a LoRA adapter, as the peft package writes it. Source: peft's LoraConfig and tuners/lora/layer.py.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "model/regex.h"

namespace hadal {

struct AdapterConfig {
  double alpha = 8;
  bool root_scale = false;                       // rslora: alpha / sqrt(rank) for alpha / rank
  std::vector<std::pair<Regex, double>> alphas;  // of modules whose whole name, or the end of it behind a dot, matches; the first counts
  float scale_of(const std::string& module, int64_t rank) const;
};

// Error names `where`, the key, what was expected and found: also for whatever an adapter can be beside low-rank products of linear layers.
AdapterConfig parse_adapter_config(const std::string& json, const std::string& where);

}  // namespace hadal
