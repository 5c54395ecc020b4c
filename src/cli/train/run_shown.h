// What a person says and sees of a run: its options, a line of progress while it goes, the outcome at its end.
#pragma once
#include <functional>
#include <string>

#include "train/run.h"

namespace CLI {
class App;
}

namespace hadal {

// Calls `run` with hooks that draw progress lines and stop at Ctrl-C; then draws the curves.
train::RunResult run_shown(const train::TrainConfig& config, const std::function<train::RunResult(const train::RunHooks&)>& run);

struct TrainingOptions {
  std::string file;
  train::RunOverrides overrides;
  bool resume = false, json = false;
  train::TrainConfig config() const { return train::read_train_config(file, overrides); }
};
void add_training_options(CLI::App* command, TrainingOptions& options);

// command: "hadal train"; what it tells to go on with.
void show_result(const train::TrainConfig& config, const train::RunResult& result, const std::string& command,
                 const TrainingOptions& options);

}  // namespace hadal
