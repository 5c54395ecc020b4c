// What a person sees of a run: a line of progress while it goes, the outcome at its end.
#pragma once
#include <functional>
#include <string>

#include "train/run.h"

namespace hadal {

// Calls `run` with hooks that draw progress lines and stop at Ctrl-C; then draws the curves.
train::RunResult run_shown(const train::TrainConfig& config, const std::function<train::RunResult(const train::RunHooks&)>& run);

struct ShownRun {
  std::string command, file;  // "hadal train", and the run file: what goes on with --resume
  bool json = false;
};
void show_result(const train::TrainConfig& config, const train::RunResult& result, const ShownRun& run);

}  // namespace hadal
