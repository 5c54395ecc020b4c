// hadal overlap: what the tests of a run file share with its training data.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/train/commands.h"
#include "core/error.h"
#include "data/overlap.h"
#include "train/run_config.h"

namespace hadal {
namespace {

struct Options {
  std::string file;
  OverlapOptions how;
  double limit = 1;
  bool json = false;
};

std::string name_of(const SourceConfig& source) {
  return source.kind + (source.path.empty() ? "" : " " + source.path) + ", " + source.split;
}

void show(const std::vector<std::string>& names, const std::vector<Overlap>& found) {
  std::vector<std::vector<std::string>> rows = {{"test", "examples", "runs", "shared", "touched", "copied"}};
  for (size_t i = 0; i < found.size(); ++i) {
    const Overlap& o = found[i];
    rows.push_back({names[i], with_commas(o.test_examples), with_commas(o.runs), with_commas(o.shared_runs), with_commas(o.touched),
                    with_commas(o.copied)});
  }
  put(table(rows, "lrrrrr"));
  put(fmt::format("Shared: runs that {} examples of training have too. Copied: examples more than half of whose runs are shared.\n",
                  with_commas(found.front().train_examples)));
}

void run(const Options& options) {
  const train::RunData data = train::read_data_of(options.file);
  if (data.evaluation.empty()) throw Error("{}: nothing to compare: expected at least one table, [[evaluation]], found none", options.file);
  std::vector<std::unique_ptr<Source>> sources;
  std::vector<const Source*> training;
  for (const train::DataConfig& each : data.train) {
    sources.push_back(open_source(each.source));
    training.push_back(sources.back().get());
  }
  std::vector<std::string> names;
  std::vector<Overlap> found;
  for (const train::DataConfig& each : data.evaluation) {
    Progress progress("comparing", "examples");
    OverlapOptions how = options.how;
    how.progress = [&](int64_t done, int64_t all) { progress.update(done, all); };
    names.push_back(name_of(each.source));
    found.push_back(measure_overlap(training, *open_source(each.source), how));
  }
  if (options.json) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (size_t i = 0; i < found.size(); ++i)
      list.push_back({{"test", names[i]},
                      {"train_examples", found[i].train_examples},
                      {"test_examples", found[i].test_examples},
                      {"runs", found[i].runs},
                      {"shared_runs", found[i].shared_runs},
                      {"touched", found[i].touched},
                      {"copied", found[i].copied}});
    put(list.dump(2) + "\n");
  } else {
    show(names, found);
  }
  for (const Overlap& each : found) expect_little_overlap(each, options.limit);
}

}  // namespace

void add_overlap(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, "overlap", "count what the tests of a run file share with its training data",
                                  R"(  hadal overlap run.toml
  hadal overlap run.toml --limit 0.01         fails where more than one test example in a hundred is copied from training)");
  command->add_option("FILE", options->file, "the run; its [[data]] and [[evaluation]] are read")->required()->check(CLI::ExistingFile);
  const auto number = [&](const char* name, int64_t& value, const char* help) {
    command->add_option(name, value, help)->check(CLI::PositiveNumber)->type_name("N")->capture_default_str();
  };
  number("--words", options->how.words, "of a run");
  number("--train-examples", options->how.train_examples, "of each source, looked at");
  number("--test-examples", options->how.test_examples, "of each source, looked at");
  command->add_option("--limit", options->limit, "share of copied examples above which the command fails")
      ->check(CLI::Range(0., 1.))
      ->capture_default_str();
  add_json(command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace hadal
