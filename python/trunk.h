// The trainer's forward pass as Python calls it: the parameters come with every call, so their owner may replace, cast or copy them.
#pragma once
#include "train/forward.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "model/source.h"

namespace hadal {

using train::Tensor;

struct TrunkCall {
  Tensor tokens;                                  // int64 [batch, time]
  int64_t window = 0, sinks = 0, top_blocks = 0;  // the caller's, for every layer; 0: the model's own
  bool recompute = false;                         // less memory: blocks run again on the way back
  bool hidden = false, routings = false;          // wanted beside the logits
  train::Memory* memory = nullptr;
};

struct LayerRouting {
  int64_t layer;
  train::Routing routing;  // with a way back
};

struct TrunkResult {
  Tensor logits;                       // float32 [batch, time, vocab]
  std::vector<Tensor> hidden;          // [batch, time, dim]: the embedding, then behind each layer, the last behind the final norm
  std::vector<LayerRouting> routings;  // of the MoE layers
};

class Trunk {
 public:
  explicit Trunk(ModelConfig config);

  struct Parameter {
    std::string name;  // as published
    std::vector<int64_t> shape;
    bool learnt;  // a router's selection bias is not: it is set
  };
  const ModelConfig& config() const { return config_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }

  std::vector<Tensor> random(uint64_t seed) const;            // float32, as train::random_params
  std::vector<Tensor> load(const ModelSource& source) const;  // float32
  // `tensors` in the order of parameters(). Error: what does not fit. Under torch.autocast matrices are cast once and norms stay float32.
  TrunkResult forward(const std::vector<Tensor>& tensors, const TrunkCall& call) const;
  // model.safetensors and config.json in `folder`, whole or not at all; tokenizer and templates as `source` has them, where there is one.
  void save(const std::vector<Tensor>& tensors, DType type, const std::filesystem::path& folder, const std::string& config_json,
            const ModelSource* source) const;

 private:
  Params<Tensor> params_of(const std::vector<Tensor>& tensors) const;

  ModelConfig config_;
  std::vector<Parameter> parameters_;
};

}  // namespace hadal
