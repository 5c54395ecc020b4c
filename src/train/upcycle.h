// A dense model becomes a mixture of experts that says the same, and learns on from there. Without a word of torch.
#pragma once
#include <filesystem>

#include "core/dtype.h"
#include "model/config.h"

namespace hadal::train {

// Each feed-forward layer is cut along its hidden units into slices of `expert_dim`. The first `shared` are run for every row; of the
// others there are experts / (width / expert_dim - shared) copies, each with a router row of its own that all its slices have in common, so
// that the best `active` experts are whole copies ("virtual groups", arXiv 2410.07524). Chosen weights are normalized and scaled by the
// number of slices: together they are the dense layer.
struct Upcycling {
  int64_t experts = 8, active = 2, shared = 0;
  int64_t expert_dim = 0;                 // 0: the whole width
  int64_t dense_layers = 0;               // so many first layers stay as they are
  int64_t groups = 1, active_groups = 1;  // of experts, each of whole copies; the best so many of them are chosen from
  RouterScore score = RouterScore::softmax;
  bool bias = true;         // a selection bias, 0 at first, which balance can set
  double router_noise = 0;  // added to every expert's own router row, in deviations of the router; above 0 the output is not the dense one
  uint64_t seed = 0;
};

// Error: a model that is no dense one of the llama or deepseek families, sizes that leave no whole copies.
ModelConfig upcycled_config(const ModelConfig& dense, const Upcycling& how);

// A checkpoint in published layout, in f32 or bf16, into a new folder. Error: as above; the folder exists.
void upcycle_checkpoint(const std::filesystem::path& dense, const Upcycling& how, DType type, const std::filesystem::path& folder);

}  // namespace hadal::train
