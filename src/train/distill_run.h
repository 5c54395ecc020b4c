// A training run whose student learns from a teacher, without a word of torch.
#pragma once
#include <filesystem>
#include <functional>
#include <vector>

#include "data/source.h"
#include "train/run.h"

namespace hadal::train {

struct DistillHooks : RunHooks {
  std::function<void(int64_t batches, int64_t all)> caching;  // while the teacher's predictions are sampled
  // Questions with the replies, for answers, of the model in a folder; the same for the same arguments. Needed where on_policy > 0.
  std::function<std::vector<Example>(const std::filesystem::path& model, int64_t round)> reply;
};

// As train(), with the losses of config.distill. Teacher and student are any two models of the family that share a tokenizer.
// Error beside those of train(): no model at the teacher's path, another vocabulary, a cache of another teacher, tokenizer or data.
RunResult distill(const TrainConfig& config, bool resume, const DistillHooks& hooks);

}  // namespace hadal::train
