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

struct Options {
  std::string file, output;
  bool resume = false, json = false;
};

void run(const Options& options) {
  train::TrainConfig config = train::read_train_config(options.file);
  if (!options.output.empty()) config.output = options.output;
  InterruptGuard guard;
  const train::RunResult result =
      run_shown(config, [&](const train::RunHooks& hooks) { return train::train(config, options.resume, hooks); });
  show_result(config, result, {"hadal train", options.file, options.json});
}

}  // namespace

void add_train(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, "train", "make a model from a run file", R"(  hadal train models/nano-v1.toml
  hadal train models/nano-v1.toml --resume
  hadal train models/nano-v1.toml --output runs/second --json

The output holds log.csv, curves.svg, the last training states, and, at the end, the model in published layout, which every command takes.
Ctrl-C saves and stops.)");
  command->add_option("FILE", options->file, "the run, as TOML (docs/training.md)")->required()->check(CLI::ExistingFile);
  command->add_option("--output", options->output, "the folder to write; default: what the file says")->type_name("FOLDER");
  command->add_flag("--resume", options->resume, "go on from the newest state in the output");
  add_json(command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace hadal
