// hadal distill: a student learns from a teacher; what it keeps stands in a report.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/train/commands.h"
#include "cli/train/other_program.h"
#include "cli/train/run_shown.h"
#include "core/error.h"
#include "core/files.h"
#include "model/presets.h"
#include "model/source.h"
#include "train/distill_run.h"

namespace hadal {
namespace {
namespace fs = std::filesystem;

using Json = nlohmann::ordered_json;
using train::RunResult;
using train::TrainConfig;

struct Options {
  TrainingOptions run;
  std::string split;
  int64_t questions = 2000;
  std::optional<std::string> hard_labels;  // a run file, or empty: the same
};

// The first of the run's sources whose examples are questions; none: the run has only plain text.
std::optional<SourceConfig> questions_of(const TrainConfig& config) {
  for (const train::DataConfig& data : config.data)
    if (open_source(data.source)->at(0).is_question()) return data.source;
  return {};
}

std::vector<std::string> answer_command(const fs::path& model, const SourceConfig& source, int64_t questions, const fs::path& out) {
  std::vector<std::string> command{"answers",
                                   model.string(),
                                   "--source",
                                   source.kind,
                                   "--split",
                                   source.split,
                                   "--questions",
                                   std::to_string(questions),
                                   "--out",
                                   out.string(),
                                   "--json",
                                   "--data-seed",
                                   std::to_string(source.seed),
                                   "--facts",
                                   std::to_string(source.facts)};
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) command.insert(command.end(), {name, value});
  };
  add("--path", source.path);
  add("--languages", fmt::format("{}", fmt::join(source.languages, ",")));
  add("--types", fmt::format("{}", fmt::join(source.types, ",")));
  add("--relations", fmt::format("{}", fmt::join(source.relations, ",")));
  return command;
}

std::vector<Example> read_replies(const fs::path& file) {
  std::vector<Example> replies;
  std::istringstream lines(read_text(file));
  for (std::string line; std::getline(lines, line);) {
    const Json json = Json::parse(line);
    Example& example = replies.emplace_back();
    example.text = json.at("text");
    example.question = json.at("question");
    example.answer = json.at("answer");
  }
  return replies;
}

// A round that was answered once is not answered again: a run that goes on finds the replies that it had.
std::vector<Example> reply(const TrainConfig& config, const SourceConfig& source, const fs::path& model, int64_t round) {
  const fs::path file = config.output / "replies" / fmt::format("round-{:05}.jsonl", round);
  if (!fs::exists(file)) {
    fs::create_directories(file.parent_path());
    const int64_t count = config.distill.replies, size = open_source(source)->size();
    std::vector<std::string> command = answer_command(model, source, count, file);
    command.insert(command.end(), {"--first", std::to_string(round * count % std::max<int64_t>(1, size - count))});
    run_hadal(command);
  }
  return read_replies(file);
}

RunResult run_student(const TrainConfig& config, bool resume) {
  return run_shown(config, [&](const train::RunHooks& hooks) {
    train::DistillHooks more{hooks, {}, {}};
    std::optional<Progress> caching;
    more.caching = [&](int64_t done, int64_t all) {
      if (!caching) caching.emplace("asking the teacher", "batches");
      caching->update(done, all);
      if (done == all) caching.reset();
    };
    if (config.distill.on_policy > 0) {
      const std::optional<SourceConfig> source = questions_of(config);
      if (!source) throw Error("{}: [distill.on_policy]: expected a [[data]] with questions, found none", config.file.string());
      more.reply = [&config, source = *source](const fs::path& model, int64_t round) { return reply(config, source, model, round); };
    }
    return train::distill(config, resume, more);
  });
}

// A student on labels alone, as many steps; not made again where it is.
fs::path hard_label_student(const TrainConfig& config, const Options& options) {
  const std::string& file = options.hard_labels->empty() ? options.run.file : *options.hard_labels;
  const TrainConfig hard = train::read_train_config(file, {(config.output / "hard-labels").string(), options.run.overrides.from});
  if (hard.schedule.steps != config.schedule.steps)
    throw Error("{}: {} steps, expected the {} of the student with a teacher", file, hard.schedule.steps, config.schedule.steps);
  const fs::path model = hard.output / "model";
  if (fs::exists(model / "model.safetensors")) return model;
  note("the student on labels alone, for comparison");
  const bool begun = fs::exists(hard.output);
  const RunResult result = run_shown(hard, [&](const train::RunHooks& hooks) { return train::train(hard, begun, hooks); });
  return result.finished ? result.model : fs::path();
}

class Report {
 public:
  Report(const TrainConfig& config, const Options& options, const SourceConfig& source)
      : folder_(config.output / "report"), source_(source), questions_(options.questions) {
    source_.split = !options.split.empty() ? options.split : source.kind == "world_qa" ? "worlds" : "test";
    fs::create_directories(folder_);
    const ModelConfig teacher = ModelSource(config.distill.teacher).config();
    json_["questions"] = {{"source", source_.kind}, {"split", source_.split}, {"count", questions_}};
    json_["parameters"] = {{"teacher", count_parameters(teacher).total}, {"student", count_parameters(config.model).total}};
    ask("teacher", config.distill.teacher);
  }
  void ask(const std::string& name, const fs::path& model) {
    std::vector<std::string> command = answer_command(model, source_, questions_, folder_ / (name + ".jsonl"));
    if (name != "teacher") command.insert(command.end(), {"--against", (folder_ / "teacher.jsonl").string()});
    json_[name] = Json::parse(run_hadal(command));
    json_[name]["model"] = model.string();
  }
  const Json& json() const { return json_; }
  fs::path write() const {
    const fs::path file = folder_ / "report.json";
    write_atomically(file, [&](std::ostream& out) { out << json_.dump(2) << "\n"; });
    return file;
  }

  // A row of all questions, then one of each type.
  std::string text() const {
    const bool hard = json_.contains("hard_labels");
    std::vector<std::vector<std::string>> rows{{"type", "teacher", "student", "kept", "95 %", "above chance", "95 %", "majority"}};
    if (hard) rows[0].push_back("hard labels");
    const Json& student = json_["student"]["against"];
    for (size_t i = 0; i < student.size(); ++i) {
      const Json& r = student[i];
      rows.push_back({r.value("type", "all"), percent(r["teacher"]), percent(r["student"]), percent(r["retention"]),
                      interval(r["retention_interval"]), percent(r["corrected"]), interval(r["corrected_interval"]), percent(r["chance"])});
      if (hard) rows.back().push_back(percent(json_["hard_labels"]["against"][i]["student"]));
    }
    const auto parameters = [&](const char* of) { return json_["parameters"][of].get<int64_t>(); };
    return table(rows, hard ? "lrrrrrrrr" : "lrrrrrrr") + fmt::format("{} parameters of {}: 1/{:.1f}\n", with_commas(parameters("student")),
                                                                      with_commas(parameters("teacher")),
                                                                      double(parameters("teacher")) / double(parameters("student")));
  }

 private:
  static std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }
  static std::string interval(const Json& i) { return fmt::format("{:.1f} to {:.1f}", 100 * i[0].get<double>(), 100 * i[1].get<double>()); }
  fs::path folder_;
  SourceConfig source_;
  int64_t questions_;
  Json json_;
};

void run(const Options& options) {
  const TrainConfig config = options.run.config();
  InterruptGuard guard;
  const RunResult result = run_student(config, options.run.resume);
  const std::optional<SourceConfig> source = questions_of(config);
  if (!result.finished || !source || options.questions == 0) return show_result(config, result, "hadal distill", options.run);
  const fs::path hard = options.hard_labels ? hard_label_student(config, options) : fs::path();
  Report report(config, options, *source);
  report.ask("student", result.model);
  if (!hard.empty()) report.ask("hard_labels", hard);
  const fs::path file = report.write();
  if (options.run.json) return put(report.json().dump(2) + "\n");
  show_result(config, result, "hadal distill", options.run);
  put(report.text() + file.string() + "\n");
}

}  // namespace

void add_distill(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, "distill", "make a student that keeps a teacher's answers", R"(  hadal distill student.toml
  hadal distill student.toml --hard-labels          beside the same student without a teacher
  hadal distill student.toml --resume --questions 5000

The file is that of `hadal train` with a table [distill] (docs/distillation.md). At the end teacher and student answer questions that training had
not; the report tells what the student keeps, by type of question, with intervals of 95 %.)");
  add_training_options(command, options->run);
  command
      ->add_option("--hard-labels", options->hard_labels,
                   "compare with a student on labels alone, trained by this run file, or by the same")
      ->expected(0, 1)
      ->type_name("[FILE]");
  command->add_option("--questions", options->questions, "of the report; 0: none")
      ->check(CLI::Range(int64_t(0), int64_t(1) << 30))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--split", options->split, "that the questions are of; default: worlds, or test where the data are files")
      ->type_name("NAME");
  command->callback([options] { run(*options); });
}

}  // namespace hadal
