// A model's parameters as torch tensors: made, loaded, cast and saved over the one list of model/params.h.
#pragma once
#include "train/torch.h"

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "model/checkpoint.h"
#include "model/params.h"

namespace hadal::train {

struct NamedTensor {
  std::string name;  // as published
  Role role;
  Tensor tensor;
};

inline constexpr std::string_view expert_mark = ".experts.";  // before the number of a routed expert
inline bool is_expert(const std::string& name) { return name.find(expert_mark) != std::string::npos; }

// Float32 leaves that ask for gradients; a router's selection bias asks for none: it is set, not learnt.
// Matrices are normal with deviation 1 / sqrt(columns), those that write to the residual stream divided by sqrt(2 layers); norms 1, biases
// 0.
Params<Tensor> random_params(const ModelConfig& config, uint64_t seed);
// The same for a training that begins with two habits from which binding names to values is learnt sooner (docs/training.md says how much;
// after the mimetic initialization of Trockman and Kolter 2023, and the circuits of Olsson et al. 2022). Lower half of the layers: the
// first head sees the nearest tokens best, whatever they are. Upper half: half of the heads have queries equal to their keys, and see
// earlier places of their own token.
Params<Tensor> initial_params(const ModelConfig& config, uint64_t seed);
// Error: names the tensor that is missing or misshaped, expected and found.
Params<Tensor> load_params(const ModelConfig& config, const Checkpoint& checkpoint);

// Undefined tensors, of experts that another program has (ranks.h), are left out here and stay undefined below.
std::vector<NamedTensor> named(const ModelConfig& config, const Params<Tensor>& params);  // in checkpoint order, sharing the tensors
std::vector<Tensor> learnt(const ModelConfig& config, const Params<Tensor>& params);      // those that ask for gradients

// The parameters as the forward pass reads them: matrices in `type`, cast once for any number of passes; norms, biases, routers and
// routed experts, whose kernels pack them, stay float32. Gradients flow back to `params`.
Params<Tensor> cast(const ModelConfig& config, const Params<Tensor>& params, torch::ScalarType type);
// Detached copies.
Params<Tensor> copy(const ModelConfig& config, const Params<Tensor>& params);

// model.safetensors with published names in `type` (f32 or bf16), under a temporary name until it is whole.
void save_params(const ModelConfig& config, const Params<Tensor>& params, DType type, const std::filesystem::path& file);

}  // namespace hadal::train
