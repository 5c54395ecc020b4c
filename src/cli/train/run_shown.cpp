#include "cli/train/run_shown.h"

#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "train/curves.h"

namespace hadal {
namespace {

using train::RunResult;
using train::StepReport;

std::string note_of(const StepReport& r, double evaluation) {
  std::string note = fmt::format("loss {:.4f}", r.loss);
  if (evaluation >= 0) note += fmt::format(", evaluation {:.4f}", evaluation);
  return note + fmt::format(", {} tokens/s, {}", as_rate(r.tokens_per_second), as_bytes(double(r.resident)));
}

}  // namespace

RunResult run_shown(const train::TrainConfig& config, const std::function<RunResult(const train::RunHooks&)>& run) {
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
    hooks.waiting = [] { note("another run prepares data: waiting until it is done"); };
    int64_t first = -1;
    hooks.report = [&](const StepReport& r) {
      preparing.reset();
      if (!training) training.emplace("training", "steps");
      if (first < 0) first = r.step - 1;
      if (r.evaluation >= 0) evaluation = r.evaluation;
      if (!r.note.empty()) note(r.note);
      training->update(r.step, r.steps, note_of(r, evaluation), first);
    };
    result = run(hooks);
  }
  train::draw_curves(config.output / "log.csv", config.output / "curves.svg");
  return result;
}

void add_training_options(CLI::App* command, TrainingOptions& options) {
  command->add_option("FILE", options.file, "the run, as TOML (docs/training.md)")->required()->check(CLI::ExistingFile);
  command->add_option("--output", options.overrides.output, "the folder to write; default: what the file says")->type_name("FOLDER");
  command->add_option("--from", options.overrides.from, "the model to go on from; default: what the file's [model] says")
      ->type_name("MODEL");
  command->add_flag("--resume", options.resume, "go on from the newest state in the output");
  add_json(command, options.json);
}

void show_result(const train::TrainConfig& config, const RunResult& result, const std::string& command, const TrainingOptions& options) {
  if (options.json) {
    nlohmann::ordered_json json{{"steps", result.steps},         {"tokens", result.tokens},     {"loss", result.loss},
                                {"seconds", result.seconds},     {"finished", result.finished}, {"output", config.output.string()},
                                {"model", result.model.string()}};
    if (result.evaluation >= 0) json["evaluation"] = result.evaluation;
    return put(json.dump(2) + "\n");
  }
  if (!result.finished) {
    std::string again = command + " " + options.file;
    if (!options.overrides.output.empty()) again += " --output " + options.overrides.output;
    if (!options.overrides.from.empty()) again += " --from " + options.overrides.from;
    return note(fmt::format("stopped behind step {}; `{} --resume` goes on", with_commas(result.steps), again));
  }
  std::string line = fmt::format("{} steps, {} tokens in {}: loss {:.4f}", with_commas(result.steps), with_commas(result.tokens),
                                 as_time(result.seconds), result.loss);
  if (result.evaluation >= 0) line += fmt::format(", evaluation {:.4f}", result.evaluation);
  put(line + fmt::format("\n{}\n{}\n", result.model.string(), (config.output / "curves.svg").string()));
  note(fmt::format("try it: hadal chat {}", result.model.string()));
}

}  // namespace hadal
