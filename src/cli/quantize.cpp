// hadal quantize: a model packed into few bits, for good.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <chrono>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "compress/pack_model.h"
#include "core/error.h"
#include "core/files.h"
#include "infer/model.h"
#include "model/part_names.h"
#include "model/presets.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::vector<std::string> paths;  // SRC DST, or DST alone
  std::string preset;
  WeightOptions weights;
  double shard_gb = 2;
  bool thorough = false, json = false;
};

struct Stopped {};  // by Ctrl-C

double bits_per_weight(const PartReport& p) { return p.values > 0 ? 8.0 * double(p.bytes) / double(p.values) : 0; }
double relative_error(const PartReport& p) { return SquaredError{p.error, p.norm}.relative(); }

Json json_of(const PartReport& p) {
  Json json{{"values", p.values}, {"bytes", p.bytes}, {"bits_per_weight", bits_per_weight(p)}};
  if (p.norm > 0) json["relative_error"] = relative_error(p);
  return json;
}

void show(const PackingReport& report, const std::string& folder, const Options& options) {
  const PartReport all = sum_of(report);
  const auto parts = parts_of(report);
  if (options.json) {
    Json json{{"folder", folder}, {"files", report.shards.size()}, {"all", json_of(all)}};
    for (const auto& [name, part] : parts) json["parts"][name] = json_of(part);
    return put(json.dump(2) + "\n");
  }
  std::vector<std::vector<std::string>> rows{{"part", "weights", "bytes", "bits each", "error"}};
  const auto add = [&](const std::string& name, const PartReport& p) {
    rows.push_back({name, with_commas(p.values), as_bytes(double(p.bytes)), fmt::format("{:.2f}", bits_per_weight(p)),
                    p.norm > 0 ? fmt::format("{:.2f} %", 100 * relative_error(p)) : "-"});
  };
  for (const std::string_view name : part_names)
    if (const auto at = parts.find(std::string(name)); at != parts.end()) add(at->first, at->second);
  add("all", all);
  put(table(rows, "lrrrr"));
  put(fmt::format("{} in {} {}: {}\n", as_bytes(double(all.bytes)), report.shards.size(), report.shards.size() == 1 ? "file" : "files",
                  folder));
}

void run(const Options& options) {
  const bool random = !options.preset.empty();
  if (options.paths.size() != (random ? 1 : 2))
    throw CLI::ValidationError(random ? "expected a folder to write, DST, beside --preset"
                                      : "expected a model, SRC, and a folder to write, DST");
  const std::filesystem::path folder = options.paths.back();
  PackOptions how{.recipe = recipe_of(options.weights),
                  .recipe_text = options.weights.text() + (options.thorough ? " thorough" : ""),
                  .thorough = options.thorough,
                  .shard_bytes = int64_t(options.shard_gb * 1e9)};
  InterruptGuard guard;
  Progress progress("packing", "weights");
  how.progress = [&](int64_t done, int64_t all, int64_t already) {
    if (interrupted()) throw Stopped{};
    progress.update(done, all, "", already);
  };
  try {
    PackingReport report;
    if (random) {
      const ModelConfig& config = preset(options.preset);
      report = pack_model(config, *random_weights(options.preset, 1), folder, how);
      const std::string text = config_json(config, options.weights.weights);
      write_atomically(folder / "config.json", [&](std::ostream& out) { out << text << "\n"; });
    } else {
      const ModelSource source = open_model(options.paths[0]);
      ModelConfig config = source.config();
      const Checkpoint checkpoint = source.checkpoint();
      config.load_draft = has_draft_layer(config, checkpoint);
      report = pack_model(config, *weights_of(config, checkpoint), folder, how);
      write_text_side(source, folder, options.weights.weights, config.load_draft ? 1 : 0);
    }
    show(report, folder.string(), options);
  } catch (const Stopped&) {
    note(fmt::format("stopped; the same command goes on from the files that are whole in {}", folder.string()));
  }
}

}  // namespace

void add_quantize(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      add_command(app, "quantize", "pack a model into 2 to 8 bits per weight", R"(  hadal quantize smollm2 smollm2-w4 --weights w4
  hadal quantize path/to/model packed --weights w4 --keep '*.down_proj.weight=w8'
  hadal quantize --preset v2-lite random-v2-lite --weights w4      random weights, for measuring

SRC is any MODEL; DST becomes a folder that every command takes as a MODEL. Memory stays below a few layers whatever the size of SRC. A run that was
killed is continued by the same command. The error of a part is the root of its squared error over its squared weights.)");
  command->add_option("SRC DST", options->paths, "the model, and the folder to write")->required()->expected(1, 2);
  command->add_option("--preset", options->preset, "in place of SRC: a shape of `hadal presets`, with random weights")->type_name("NAME");
  add_weights(command, options->weights)->required();
  command->add_option("--shard-size", options->shard_gb, "most gigabytes of one file")
      ->check(CLI::Range(1e-6, 1e6))
      ->type_name("GB")
      ->capture_default_str();
  command->add_flag("--thorough", options->thorough, "search scales longer for a slightly smaller error");
  add_threads(command);
  add_json(command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace hadal
