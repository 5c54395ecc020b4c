// The published shapes, for counting, planning and benchmarks without a checkpoint. Source: docs/numerics.md.
#pragma once
#include <string>
#include <vector>

#include "model/config.h"

namespace hadal {

struct Preset {
  std::string name, repository;  // no repository: a shape of our own
  ModelConfig config;
};
const std::vector<Preset>& presets();
const ModelConfig& preset(const std::string& name);  // Error lists the names

struct ParameterCount {
  int64_t total = 0, active = 0;  // active: touched by one token (chosen and shared experts, one row of the embedding table)
};
ParameterCount count_parameters(const ModelConfig& config);

}  // namespace hadal
