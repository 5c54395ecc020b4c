// A LoRA adapter: what it adds to the matrices of one model. Many may run beside each other in one batch.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "infer/model.h"
#include "model/params.h"
#include "ops/ops.h"

namespace hadal {

struct Adapter {  // immutable after loading; the requests that run with it keep it alive, and it needs its model
  std::string name;
  uint64_t generation = 0;  // made of its files' bytes, never 0: what was computed with it is of use to the same generation only
  int64_t matrices = 0, largest_rank = 0;
  bool has_experts = false;                                 // products of routed experts
  Params<LowRank> params;                                   // empty where it adds nothing
  std::unordered_map<const std::byte*, LowRank> by_weight;  // by the bytes of the matrix that it stands beside
  std::vector<float> values;
  const std::byte* base = nullptr;  // bytes of the model that it was loaded for

  LowRank beside(const Weight& w) const {
    const auto at = by_weight.find(w.data);
    return at == by_weight.end() ? LowRank{} : at->second;
  }
  const Mlp<LowRank>& expert(int64_t layer, int32_t e) const {
    return std::get<Moe<LowRank>>(params.blocks[size_t(layer)].ffn).experts[size_t(e)];
  }
  bool belongs_to(const Model& model) const { return base == model.params.embed.data; }
  int64_t bytes() const { return int64_t(values.size() * sizeof(float)); }
};

// From a folder as the peft package writes it: adapter_config.json beside adapter_model.safetensors (or .bin).
// Error: names the file, and the tensor or key that is missing, misshaped, unknown or not supported.
std::shared_ptr<const Adapter> load_adapter(const Model& model, const std::filesystem::path& folder, std::string name);

}  // namespace hadal
