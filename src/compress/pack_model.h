// A model's weights packed into a folder in Hugging Face layout, a few megabytes at a time: docs/formats.md.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "infer/quantize.h"
#include "infer/recipe.h"
#include "model/checkpoint.h"
#include "model/write_config.h"

namespace hadal {

struct PackOptions {
  Recipe recipe;
  std::string recipe_text;  // the recipe in words: a folder begun with another one is not continued
  bool thorough = false;    // QuantizeOptions::thorough
  int64_t shard_bytes = int64_t(2) << 30;
  // Called often, with counts of weights; `already` were there when this run began. May throw to end it: finished shards stay.
  std::function<void(int64_t done, int64_t all, int64_t already)> progress = [](int64_t, int64_t, int64_t) {};
};

class WeightMaker;                                                                                 // where weights come from
std::unique_ptr<WeightMaker> weights_of(const ModelConfig& config, const Checkpoint& checkpoint);  // must outlive it
std::unique_ptr<WeightMaker> random_weights(const std::string& preset, uint64_t seed);

// Writes the shards, the index and the report, but not the configuration, without which the folder is no model yet. Shards that an earlier
// run finished are verified and kept. Error: the folder holds something else; too little room on the disk; a disk that fails.
PackingReport pack_model(const ModelConfig& config, WeightMaker& weights, const std::filesystem::path& folder, const PackOptions& options);

PartReport sum_of(const PackingReport& report);
std::map<std::string, PartReport> parts_of(const PackingReport& report);

class WeightMaker {
 public:
  virtual ~WeightMaker() = default;
  virtual std::string identity() const = 0;                       // tells this source from others, and from itself after a change
  virtual void expect(const std::string& name, Shape shape) = 0;  // for each parameter first. Error: it is not there, or packed already
  virtual void expect_no_more() = 0;                              // Error: something is left over
  virtual DType plain_type(const std::string& name, Shape shape) = 0;
  // Rows [first, first + rows) of a matrix, first a multiple of 16.
  virtual SquaredError pack(const std::string& name, DType type, Shape shape, int64_t first, int64_t rows, bool thorough,
                            const PackedMemory& to) = 0;
  virtual void fill(const std::string& name, DType type, Shape shape, Role role, int64_t first, int64_t rows, std::byte* to) = 0;
};

}  // namespace hadal
