// A model ready to run.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "core/mat.h"
#include "core/memory.h"
#include "infer/recipe.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/params.h"

namespace hadal {

class ExpertLoad;
class ExpertStore;
class MappedFile;

struct Model {  // immutable after loading; any number of engines may share one
  ModelConfig config;
  Params<Weight> params;       // views into the mapped checkpoint, or expanded copies
  std::vector<Weight> k_up_t;  // derived at load, per layer: the key half of kv_up, transposed per head: [heads * kv_rank, nope_dim] (mla)
  std::vector<float> rope_frequency;  // radians per position of each rotated pair
  // From this many rows of one sequence on, mla expands keys and values from the latents; below, it attends to the latents themselves.
  int64_t mla_expand_rows = 160;
  std::vector<std::shared_ptr<const void>> bytes;        // keeps what params point into
  std::vector<std::shared_ptr<const MappedFile>> files;  // those of the checkpoint
  std::shared_ptr<ExpertStore> experts;                  // reads the routed experts when they do not fit in memory; null: they do
  std::shared_ptr<ExpertLoad> load = {};                 // counts what each expert does; null: nobody asks
  std::function<void(int64_t layer, Mat<const float> scores)> watch_routers = {};  // [rows, experts] of every pass; empty: nobody asks
};

struct LoadOptions {
  Recipe recipe;                                            // packs or converts matrices on the way
  bool experts_on_disk = false;                             // no byte of a packed routed expert is looked at
  std::function<void(int64_t done, int64_t all)> progress;  // weights; may be empty
};

// Packed, f32, f16 and bf16 weights stay where they are mapped; other types are expanded (see load.cpp).
// Error: names the tensor that is missing, extra or misshaped, expected and found.
Model load_model(const ModelConfig& config, const Checkpoint& checkpoint, const LoadOptions& options = {});

bool has_draft_layer(const ModelConfig& config, const Checkpoint& checkpoint);  // then config.load_draft may be set

// For benchmarks without a checkpoint: activations stay of sane size. What the recipe leaves open becomes bf16.
Model random_model(const ModelConfig& config, const Recipe& recipe, uint64_t seed);
Model random_model(const ModelConfig& config, DType type, uint64_t seed);

}  // namespace hadal
