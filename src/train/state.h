// Where a training run stands: everything that the steps to come depend on. In OUTPUT/state/step-N, a folder that appears when it is whole.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "train/forward.h"
#include "train/weights.h"

namespace hadal::train {

struct RunState {
  int64_t step = 0;              // of the next step; also the number of its batch, but for batches that were left out
  int64_t skipped = 0;           // batches left out behind a loss that leapt
  std::vector<double> losses;    // the last ones
  std::vector<Memory> memories;  // of each micro-batch; empty: the next batch begins texts
};

// Tensors (weights, optimizer, moving averages) are written and read under their names; reading copies into those given.
void save_state(const std::filesystem::path& folder, const RunState& state, const std::vector<NamedTensor>& tensors);
// Error: names the tensor that is missing or misshaped.
RunState load_state(const std::filesystem::path& folder, const std::vector<NamedTensor>& tensors);

std::filesystem::path state_folder(const std::filesystem::path& output, int64_t step);
std::vector<int64_t> saved_steps(const std::filesystem::path& output);  // ascending

}  // namespace hadal::train
