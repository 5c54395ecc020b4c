// A training run as the command line sees it, without a word of torch.
#pragma once
#include <filesystem>
#include <functional>
#include <string>

#include "train/run_config.h"

namespace hadal::train {

struct StepReport {
  int64_t step = 0, steps = 0;  // done, and of the run
  double loss = 0;              // mean over the batch's tokens, nats
  double evaluation = -1;       // of the evaluation data; negative: not measured at this step
  double learning_rate = 0, gradient_norm = 0;
  double spread = 0;                          // (max - min) / mean of the experts' loads in this batch, worst layer; 0: no experts
  double tokens_per_second = 0, seconds = 0;  // of this program, not of earlier parts of the run
  int64_t resident = 0;                       // bytes
  std::string note;                           // what else happened: "went back to step 400"
};

struct RunHooks {
  std::function<void(const StepReport&)> report;                    // behind every step; may be empty
  std::function<void(int64_t tokens, int64_t examples)> preparing;  // while data become shards
  std::function<void()> waiting;                                    // before this run waits for another that writes shards
  std::function<bool()> stop;                                       // true: save and return
};

struct RunResult {
  int64_t steps = 0, tokens = 0;
  double loss = 0, evaluation = -1, seconds = 0;
  bool finished = false;        // false: stopped before the last step
  std::filesystem::path model;  // the checkpoint, when finished
};

// A run that was stopped or killed goes on from its newest state if `resume`. Error: an output that holds another run's states and no
// `resume`; what the data, the tokenizer or the disk say; a loss that is no number again and again (the last state is whole).
RunResult train(const TrainConfig& config, bool resume, const RunHooks& hooks = {});

}  // namespace hadal::train
