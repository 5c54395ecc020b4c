// hadal train: a model made from a run file.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/train/commands.h"
#include "train/curves.h"
#include "train/run.h"

namespace hadal {
namespace {

using train::RunResult;
using train::StepReport;

struct Options {
  std::string file, output;
  bool resume = false, json = false;
};

std::string note_of(const StepReport& r, double evaluation) {
  std::string note = fmt::format("loss {:.4f}", r.loss);
  if (evaluation >= 0) note += fmt::format(", evaluation {:.4f}", evaluation);
  return note + fmt::format(", {} tokens/s, {}", as_rate(r.tokens_per_second), as_bytes(double(r.resident)));
}

void show(const train::TrainConfig& config, const RunResult& result, const Options& options) {
  if (options.json) {
    nlohmann::ordered_json json{{"steps", result.steps},         {"tokens", result.tokens},     {"loss", result.loss},
                                {"seconds", result.seconds},     {"finished", result.finished}, {"output", config.output.string()},
                                {"model", result.model.string()}};
    if (result.evaluation >= 0) json["evaluation"] = result.evaluation;
    return put(json.dump(2) + "\n");
  }
  if (!result.finished)
    return note(fmt::format("stopped behind step {}; `hadal train {} --resume` goes on", with_commas(result.steps), options.file));
  std::string line = fmt::format("{} steps, {} tokens in {}: loss {:.4f}", with_commas(result.steps), with_commas(result.tokens),
                                 as_time(result.seconds), result.loss);
  if (result.evaluation >= 0) line += fmt::format(", evaluation {:.4f}", result.evaluation);
  put(line + fmt::format("\n{}\n{}\n", result.model.string(), (config.output / "curves.svg").string()));
  note(fmt::format("try it: hadal chat {}", result.model.string()));
}

void run(const Options& options) {
  train::TrainConfig config = train::read_train_config(options.file);
  if (!options.output.empty()) config.output = options.output;
  InterruptGuard guard;
  RunResult result;
  {
    std::optional<Progress> preparing, training;
    double evaluation = -1;
    train::RunHooks hooks;
    hooks.stop = [] { return interrupted(); };
    hooks.preparing = [&](int64_t tokens, int64_t examples) {
      if (!preparing) preparing.emplace("preparing data", "tokens");
      preparing->update(tokens, 0, fmt::format("{} examples", with_commas(examples)));
    };
    int64_t first = -1;
    hooks.report = [&](const StepReport& r) {
      preparing.reset();
      if (!training) training.emplace("training", "steps");
      if (first < 0) first = r.step - 1;
      if (r.evaluation >= 0) evaluation = r.evaluation;
      if (!r.note.empty()) note(r.note);
      training->update(r.step, r.steps, note_of(r, evaluation), first);
    };
    result = train::train(config, options.resume, hooks);
  }
  train::draw_curves(config.output / "log.csv", config.output / "curves.svg");
  show(config, result, options);
}

}  // namespace

void add_train(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, "train", "make a model from a run file", R"(  hadal train examples/worlds.toml
  hadal train examples/worlds.toml --resume
  hadal train examples/worlds.toml --output runs/second --json

The output holds log.csv, curves.svg, the last training states, and, at the end, the model in published layout, which every command takes.
Ctrl-C saves and stops.)");
  command->add_option("FILE", options->file, "the run, as TOML (docs/training.md)")->required()->check(CLI::ExistingFile)->type_name("");
  command->add_option("--output", options->output, "the folder to write; default: what the file says")->type_name("FOLDER");
  command->add_flag("--resume", options->resume, "go on from the newest state in the output");
  add_json(command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace hadal
