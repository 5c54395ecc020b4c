// hadal train: a model made from a run file.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>

#include "cli/options.h"
#include "cli/output.h"
#include "cli/train/commands.h"
#include "cli/train/run_shown.h"
#include "train/run.h"

namespace hadal {
namespace {

void run(const TrainingOptions& options) {
  const train::TrainConfig config = options.config();
  InterruptGuard guard;
  const train::RunResult result =
      run_shown(config, [&](const train::RunHooks& hooks) { return train::train(config, options.resume, hooks); });
  show_result(config, result, "hadal train", options);
}

}  // namespace

void add_train(CLI::App& app) {
  auto options = std::make_shared<TrainingOptions>();
  CLI::App* command = add_command(app, "train", "make a model from a run file", R"(  hadal train models/nano-v1.toml
  hadal train models/nano-v1.toml --resume
  hadal train models/curriculum/lookups.toml --from runs/shipped/nano-v1/first/model --output runs/second --json

The output holds log.csv, curves.svg, the last training states, and, at the end, the model in published layout, which every command takes.
Ctrl-C saves and stops.)");
  add_training_options(command, *options);
  command->callback([options] { run(*options); });
}

}  // namespace hadal
