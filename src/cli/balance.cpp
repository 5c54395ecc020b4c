// hadal balance: how evenly a mixture's experts are used by a text, and biases that make it even.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "compress/replace_values.h"
#include "core/error.h"
#include "core/files.h"
#include "data/encoder.h"
#include "eval/expert_load.h"
#include "eval/load_picture.h"
#include "infer/model.h"
#include "model/prompt.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string model, data, calibrate, picture;
  BalanceOptions load;
  FeedingOptions feeding;
  WeightOptions weights;
  int64_t rounds = 3, tokens = int64_t(1) << 20;
  bool json = false;
};

const LayerLoad& worst(const std::vector<LayerLoad>& layers) {
  return *std::ranges::max_element(layers, {}, [](const LayerLoad& l) { return l.figures.spread; });
}

Json json_of(const LayerLoad& l) {
  const LoadFigures& f = l.figures;
  return {{"layer", l.layer},
          {"spread", f.spread},
          {"floor", f.floor},
          {"max_violation", f.max_violation},
          {"min_violation", f.min_violation},
          {"batch_violation", l.batch_violation},
          {"variation", f.variation},
          {"entropy", f.entropy},
          {"dead", f.dead},
          {"load", l.load}};
}

Json json_of(const TextLoad& found, bool loss) {
  const std::vector<LayerLoad>& layers = found.layers;
  Json json{{"tokens", layers[0].figures.rows}, {"worst_spread", worst(layers).figures.spread}, {"floor", layers[0].figures.floor}};
  if (loss) json["loss"] = found.loss;
  for (const LayerLoad& l : layers) json["layers"].push_back(json_of(l));
  return json;
}

struct Text {
  std::vector<int32_t> tokens;
  std::optional<int32_t> begin;  // of each window
};

// The examples of a source one after the other, as they are trained on.
std::vector<int32_t> tokens_of(const Source& source, const Encoder& encoder, int64_t count) {
  std::vector<int32_t> tokens;
  Progress progress("reading", "tokens");
  for (int64_t i = 0; i < source.size() && int64_t(tokens.size()) < count; ++i) {
    const std::vector<int32_t> more = encoder.encode(source.at(i)).tokens;
    tokens.insert(tokens.end(), more.begin(), more.end());
    progress.update(int64_t(tokens.size()), count);
  }
  return tokens;
}

Text read_data(const Options& options, const ModelSource& source) {
  const size_t colon = options.data.find(':');
  if (colon != std::string::npos && !std::filesystem::exists(options.data)) {
    SourceConfig config;
    config.kind = options.data.substr(0, colon);
    config.split = options.data.substr(colon + 1);
    return {tokens_of(*open_source(config), Encoder(source.path()), options.tokens), {}};
  }
  const Tokenizer tokenizer = source.tokenizer();
  return {raw_prompt(tokenizer, read_text(TextOptions{{}, options.data})).tokens,
          tokenizer.adds_begin() ? tokenizer.begin_token() : std::nullopt};
}

std::string percent(double share) { return fmt::format("{:.2f} %", 100 * share); }

void show(const TextLoad& found, const ModelConfig& config, bool loss) {
  const std::vector<LayerLoad>& layers = found.layers;
  std::vector<std::vector<std::string>> rows{
      {"layer", "spread", "floor", "MaxVio", "MinVio", "MaxVio of a batch", "deviation", "entropy", "dead"}};
  for (const LayerLoad& l : layers) {
    const LoadFigures& f = l.figures;
    rows.push_back({std::to_string(l.layer), percent(f.spread), percent(f.floor), fmt::format("{:.3f}", f.max_violation),
                    fmt::format("{:.3f}", f.min_violation), fmt::format("{:.3f}", l.batch_violation), percent(f.variation),
                    fmt::format("{:.4f}", f.entropy), std::to_string(f.dead)});
  }
  put(table(rows, "rrrrrrrrr"));
  put(fmt::format("{} experts, {} a token, {} tokens: worst layer {}, spread {}; a perfectly even router would show {}\n",
                  config.moe.experts, config.moe.active, with_commas(layers[0].figures.rows), worst(layers).layer,
                  percent(worst(layers).figures.spread), percent(layers[0].figures.floor)));
  if (loss) put(fmt::format("loss {:.4f}\n", found.loss));
}

TextLoad measure(const Model& model, const Text& text, const BalanceOptions& options) {
  Progress progress("balance", "windows");
  return measure_load(model, text.tokens, text.begin, options, [&](int64_t done, int64_t all) { progress.update(done, all); });
}

std::vector<LayerBias> fit(const Model& model, const Text& text, const Options& options) {
  int64_t round = 0;
  Progress progress("calibrating", "windows");
  return calibrate_biases(model, text.tokens, text.begin, options.load,
                          {.rounds = options.rounds, .started = [&](int64_t r) { round = r; }}, [&](int64_t done, int64_t all) {
                            progress.update(round * all + done, options.rounds * all,
                                            fmt::format("round {} of {}", round + 1, options.rounds));
                          });
}

void write_biases(const ModelSource& source, const std::vector<LayerBias>& biases, const std::string& folder) {
  std::map<std::string, std::vector<float>> values;
  for (const LayerBias& b : biases) values[fmt::format("model.layers.{}.mlp.gate.e_score_correction_bias", b.layer)] = b.bias;
  copy_with_values(source.path(), source.checkpoint(), folder, values);
}

void run(const Options& given) {
  Options options = given;
  const ModelSource source = open_model(options.model);
  const ModelConfig config = options.feeding.masked(source.config());
  if (config.moe.experts == 0) throw Error("{}: expected a mixture of experts, found a dense model", options.model);
  const bool calibrates = !options.calibrate.empty();
  if (calibrates && std::filesystem::exists(options.calibrate))
    throw Error("{}: expected a new folder, found one that exists", options.calibrate);
  const Text text = read_data(options, source);
  const Model model = load_model(source, config, options.weights);
  options.load.context = std::min(options.load.context, config.context);
  options.load.feed = {options.feeding.cache_for(model), options.feeding.chunk, nullptr};
  options.load.every_second = calibrates;
  const TextLoad before = measure(model, text, options.load);
  Json json{{"model", options.model}, {"experts", config.moe.experts}, {"active", config.moe.active}};
  if (!options.json) show(before, config, options.load.loss);
  TextLoad last = before;
  if (calibrates) {
    const std::vector<LayerBias> biases = fit(model, text, options);
    last = measure(with_biases(model, biases), text, options.load);
    write_biases(source, biases, options.calibrate);
    json["before"] = json_of(before, options.load.loss);
    json["folder"] = options.calibrate;
    if (!options.json) {
      put("\nwith biases fitted on the other half of the text:\n");
      show(last, config, options.load.loss);
      put(fmt::format("written: {}\n", options.calibrate));
    }
  }
  json.update(json_of(last, options.load.loss));
  if (options.json) put(json.dump(2) + "\n");
  if (options.picture.empty()) return;
  const std::string title = fmt::format("{}: load of each expert over {} tokens", options.model, with_commas(last.layers[0].figures.rows));
  write_atomically(options.picture, [&](std::ostream& out) { out << load_picture(last.layers, title); });
  if (!options.json) put(fmt::format("picture: {}\n", options.picture));
}

}  // namespace

void add_balance(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, "balance", "how evenly a mixture's experts are used", R"(  hadal balance path/to/model book.txt
  hadal balance path/to/model world_text:worlds --tokens 2000000     text made for it, which no training has seen
  hadal balance path/to/model book.txt --picture load.svg --json
  hadal balance path/to/model book.txt --calibrate balanced      fits the selection biases and writes the model with them

For every layer with experts: spread is (most - least) / mean of the experts' loads; floor is the spread that chance gives a perfectly even
router over so many tokens, so measure on a million or more; MaxVio is most / mean - 1, MinVio 1 - least / mean, MaxVio of a batch the
largest of any 16,384 tokens in a row; entropy is 1 where all loads are equal; dead experts are those that no token chose.
--calibrate leaves all weights as they are and sets each router's selection bias so that its experts are chosen equally often (quantile
balancing). It fits on every second window of the text and measures, before and after, on the others.)");
  add_model(command, options->model);
  command->add_option("DATA", options->data, "a text file, or KIND:SPLIT of a source of training data")->required();
  command->add_option("--tokens", options->tokens, "of such a source")->check(CLI::PositiveNumber)->type_name("N")->capture_default_str();
  command->add_option("--context", options->load.context, "tokens of a window")
      ->check(CLI::Range(int64_t(3), int64_t(1) << 31))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--max-windows", options->load.max_windows, "stop after so many windows; 0: the whole text")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--loss", options->load.loss, "also the mean loss over the tokens");
  command->add_option("--calibrate", options->calibrate, "a new folder for the model with fitted biases")->type_name("FOLDER");
  command->add_option("--rounds", options->rounds, "readings of the text that the fit takes, layers seeing what those before have become")
      ->check(CLI::Range(1, 100))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--picture", options->picture, "a heat map, as SVG")->type_name("FILE");
  add_feeding(command, options->feeding);
  add_weights(command, options->weights);
  add_threads(command);
  add_json(command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace hadal
