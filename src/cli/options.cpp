#include "cli/options.h"

#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>

#include "cli/output.h"
#include "cli/progress.h"
#include "core/error.h"
#include "core/pool.h"
#include "eval/logits.h"
#include "infer/adapter.h"
#include "infer/expert_store.h"
#include "infer/model.h"
#include "model/config_rules.h"
#include "plan/residency.h"

namespace hadal {
namespace {

std::string read_all(std::istream& in, const std::string& name) {
  std::string text(std::istreambuf_iterator<char>(in), {});
  if (in.bad()) throw Error("cannot read {}: {}", name, std::strerror(errno));
  return text;
}

std::vector<int32_t> parse_ids(const std::string& text) {
  std::vector<int32_t> ids;
  const char *at = text.data(), *end = at + text.size();
  for (;;) {
    while (at != end && std::strchr(", \t\r\n[]", *at) != nullptr) ++at;
    if (at == end) return ids;
    int32_t id = 0;
    const auto [stop, problem] = std::from_chars(at, end, id);
    if (problem != std::errc() || id < 0)
      throw CLI::ValidationError(fmt::format("expected token ids like 1,2,3, found '{}'", std::string(at, end)));
    ids.push_back(id);
    at = stop;
  }
}

}  // namespace

CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& what, const std::string& examples) {
  CLI::App* command = app.add_subcommand(name, what);
  command->group("Commands");
  command->footer("Examples:\n" + examples);
  return command;
}

CLI::Option* add_model(CLI::App* command, std::string& model) {
  return command->add_option("MODEL", model, "a folder in Hugging Face layout, a .gguf file, or a name (see `hadal models`)")->required();
}

void add_threads(CLI::App* command) {
  command
      ->add_option_function<int>(
          "--threads", [](int count) { set_pool_threads(count); }, "threads to compute with; default: every core this process may use")
      ->check(CLI::Range(1, 1024))
      ->type_name("N");
}

void add_json(CLI::App* command, bool& json) { command->add_flag("--json", json, "one JSON document on standard output, for programs"); }

void add_ids(CLI::App* command, const std::string& name, std::vector<int32_t>& ids, const std::string& what) {
  command
      ->add_option_function<std::string>(
          name, [&ids](const std::string& text) { ids = parse_ids(text); }, what)
      ->type_name("1,2,3");
}

void add_text(CLI::App* command, TextOptions& options) {
  CLI::Option* text =
      command->add_option("-p,--prompt", options.text, "the text; without -p and -f it is read from standard input")->type_name("TEXT");
  command->add_option("-f,--file", options.file, "a file that holds the text; - is standard input")->type_name("FILE")->excludes(text);
}

std::string read_text(const TextOptions& options) {
  if (options.text) return *options.text;
  if (options.file.empty() || options.file == "-") {
    if (::isatty(STDIN_FILENO)) fmt::print(stderr, "Type the text; Ctrl-D on an empty line ends it.\n");
    return read_all(std::cin, "standard input");
  }
  if (std::filesystem::is_directory(options.file)) throw Error("cannot read {}: it is a folder, expected a text file", options.file);
  errno = 0;
  std::ifstream in(options.file, std::ios::binary);
  if (!in) throw Error("cannot read {}: {}", options.file, std::strerror(errno));
  return read_all(in, options.file);
}

std::string without_last_newline(std::string text) {
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

void add_feeding(CLI::App* command, FeedingOptions& options) {
  command->add_option("--chunk", options.chunk, "prompt tokens per forward pass")
      ->check(CLI::Range(int64_t(1), int64_t(1) << 20))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--cache", options.cache, "how keys and values are kept; default: f32 for f32 weights, i8 for packed ones, else f16")
      ->check(CLI::IsMember({"i8", "f16", "f32"}))
      ->type_name("i8|f16|f32");
  add_masks(command, options);
}

void add_masks(CLI::App* command, FeedingOptions& options) {
  const auto add = [&](const char* name, int64_t& to, const char* what) {
    command->add_option(name, to, what)->check(CLI::Range(int64_t(1), longest_context))->type_name("N")->group("Attention");
  };
  add("--attention-window", options.window, "each token sees the last N only; what no layer sees any more is not kept");
  add("--attention-sinks", options.sinks, "beside a window, the first N tokens as well");
  add("--attention-topk-blocks", options.top_blocks, "each token sees the N blocks of 64 whose keys fit it best");
}

ModelConfig FeedingOptions::masked(ModelConfig config) const {
  if (window > 0) config.attention_window = window;
  if (sinks > 0) config.attention_sinks = sinks;
  if (top_blocks > 0) config.attention_top_blocks = top_blocks;
  check_config(config, "these options");
  return config;
}

DType FeedingOptions::cache_for(const Model& model) const {
  if (cache.empty()) return natural_cache(model);
  return cache == "f32" ? DType::f32 : cache == "f16" ? DType::f16 : DType::i8;
}

void add_draft(CLI::App* command, Drafting& drafting) {
  static const std::map<std::string, Drafting> names{
      {"off", Drafting::off}, {"lookup", Drafting::lookup}, {"mtp", Drafting::mtp}, {"auto", Drafting::automatic}};
  command
      ->add_option_function<std::string>(
          "--draft", [&drafting](const std::string& name) { drafting = names.at(name); },
          "guess tokens and check several in one pass, while that is faster; the reply is the same. lookup: what followed the same words "
          "before; mtp: the checkpoint's draft layer; auto: either")
      ->check(CLI::IsMember({"off", "lookup", "mtp", "auto"}))
      ->type_name("off|lookup|mtp|auto")
      ->default_str("auto");
}

std::string WeightOptions::text() const {
  std::string line = weights;
  for (const std::string& k : keep) line += " --keep " + k;
  return line;
}

CLI::Option* add_weights(CLI::App* command, WeightOptions& options) {
  command
      ->add_option("--keep", options.keep, "other types for weights whose names match, like '*.o_proj.weight=w8'; the first match counts")
      ->type_name("PATTERN=TYPE");
  return command
      ->add_option("--weights", options.weights,
                   "the type of matrices: w8, w4, w3, w2 (packed; few bits for most, more where that pays), f32, f16 or bf16")
      ->check(CLI::IsMember({"w8", "w4", "w3", "w2", "f32", "f16", "bf16"}))
      ->type_name("TYPE");
}

Recipe recipe_of(const WeightOptions& options) {
  Recipe recipe;
  if (!options.weights.empty()) recipe.weights = parse_weight_type(options.weights);
  if (!options.keep.empty() && !recipe.weights) throw Error("--keep says what is kept from being packed: expected --weights beside it");
  for (const std::string& text : options.keep) {
    const size_t equals = text.rfind('=');
    if (equals == std::string::npos || equals == 0) throw Error("--keep {}: expected PATTERN=TYPE, like '*.o_proj.weight=w8'", text);
    recipe.keep.emplace_back(text.substr(0, equals), parse_weight_type(text.substr(equals + 1)));
  }
  return recipe;
}

namespace {
// Loads the draft layer too, where it is wanted and the checkpoint has one.
void choose_draft(ModelConfig& config, const Checkpoint& checkpoint, Drafting drafting) {
  if (drafting != Drafting::mtp && drafting != Drafting::automatic) return;
  config.load_draft = has_draft_layer(config, checkpoint);
  if (!config.load_draft && drafting == Drafting::mtp)
    throw Error("--draft mtp: this checkpoint has no draft layer; `--draft lookup` needs none");
}
}  // namespace

Model load_model(const ModelSource& source, ModelConfig config, const WeightOptions& weights, Drafting drafting) {
  const Checkpoint checkpoint = source.checkpoint();
  choose_draft(config, checkpoint, drafting);
  LoadOptions options{.recipe = recipe_of(weights), .experts_on_disk = weights.memory > 0, .progress = {}};
  std::optional<Progress> progress;
  if (options.recipe.weights) {
    progress.emplace("packing", "weights");
    options.progress = [&](int64_t done, int64_t all) { progress->update(done, all); };
  }
  return load_model(config, checkpoint, options);
}

void add_adapter(CLI::App* command, std::string& folder) {
  command->add_option("--adapter", folder, "a LoRA adapter of the model, as the peft package saves it")->type_name("FOLDER");
}

std::shared_ptr<const Adapter> open_adapter(const Model& model, const std::string& folder) {
  if (folder.empty()) return nullptr;
  return load_adapter(model, folder, folder);
}

namespace {
// "5.7GB" becomes "5700000000"; units are powers of 1000, with an i of 1024. Returns what is wrong, or nothing.
std::string size_in_bytes(std::string& text) {
  size_t end = 0;
  double number = 0;
  try {
    number = std::stod(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  std::string unit = text.substr(end);
  std::erase(unit, ' ');
  const double base = unit.size() == 3 && unit[1] == 'i' ? 1024 : 1000;
  const size_t power = unit.empty() || unit == "B" ? 0 : std::string("?KMGT").find(char(std::toupper(unit[0])));
  const bool known = unit.size() <= 1 || unit == "B" || (unit.back() == 'B' && unit.size() == (base == 1024 ? 3 : 2));
  if (end == 0 || !(number > 0) || power == std::string::npos || (power == 0 && !unit.empty() && unit != "B") || !known ||
      number * std::pow(base, power) > 1e18)
    return fmt::format("expected a size like 800MB, 5.7GB or 4GiB, found {}", text);
  text = fmt::format("{:.0f}", number * std::pow(base, power));
  return {};
}
}  // namespace

CLI::Option* add_size(CLI::App* command, const std::string& name, int64_t& bytes, const std::string& help) {
  return command->add_option(name, bytes, help)->transform(CLI::Validator(size_in_bytes, "SIZE"))->type_name("SIZE");
}

void add_memory(CLI::App* command, WeightOptions& options) {
  add_size(command, "--memory", options.memory,
           "keep all of it within so much memory, like 5.7GB: routed experts that do not fit stay on disk");
}

void keep_within(Model& model, const WeightOptions& weights, DType cache, int64_t cache_rows, int64_t max_rows) {
  if (weights.memory == 0) return;
  const Residency r = fit(model, weights.memory, cache, cache_rows, max_rows);
  if (!r.streams) return;
  model.experts = std::make_shared<ExpertStore>(model, r.arena);
  note(fmt::format("{} of experts in memory, {} of {} on disk", as_bytes(double(r.arena)),
                   as_bytes(double(routed_expert_bytes(model) - r.arena)), as_bytes(double(routed_expert_bytes(model)))));
}

void add_run(CLI::App* command, RunOptions& options) {
  add_sampling(command, options.sampling);
  add_feeding(command, options.feeding);
  add_draft(command, options.drafting);
  add_weights(command, options.weights);
  add_memory(command, options.weights);
  add_threads(command);
}

ModelSource open_model(const std::string& reference) { return ModelSource(resolve_model(reference)); }

}  // namespace hadal
