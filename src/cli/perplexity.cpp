// hadal perplexity: how well a model predicts a text.
#include "eval/divergence.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "core/error.h"
#include "model/prompt.h"

namespace hadal {
namespace {

struct Options {
  std::string model, adapter, reference, reference_cache;
  TextOptions text;
  FeedingOptions feeding;
  WeightOptions weights;
  int64_t context = 512, max_windows = 0;
  std::optional<int64_t> read_only;
  bool json = false;
};

using Json = nlohmann::ordered_json;

Json json_of(const Perplexity& p) {
  return {{"perplexity", p.value},
          {"standard_error", p.standard_error},
          {"mean_nll", p.mean_nll},
          {"scored", p.scored},
          {"windows", p.windows}};
}

struct Text {
  std::vector<int32_t> tokens;
  std::optional<int32_t> begin;
  PerplexityOptions how;
};

std::string so_far(const Perplexity& p) { return fmt::format("so far {:.4f}", p.value); }

std::string line_of(const Perplexity& p, const Text& text) {
  return fmt::format("perplexity {:.4f} +- {:.4f}  ({} predictions in {} windows of {} tokens; the text has {} tokens)\n", p.value,
                     p.standard_error, with_commas(p.scored), with_commas(p.windows), with_commas(text.how.context),
                     with_commas(int64_t(text.tokens.size())));
}

void measure_alone(const Options& options, const Model& model, const Text& text) {
  Perplexity result;
  {
    Progress progress("perplexity", "windows");
    result = measure_perplexity(model, text.tokens, text.begin, text.how,
                                [&](const Perplexity& p, int64_t windows) { progress.update(p.windows, windows, so_far(p)); });
  }
  if (!options.json) return put(line_of(result, text));
  Json json = json_of(result);
  json["context"] = text.how.context;
  json["tokens"] = text.tokens.size();
  put(json.dump(2) + "\n");
}

void measure_beside(const Options& options, const Model& model, const Text& text) {
  const ModelSource source = open_model(options.reference);
  const Model reference = load_model(source, source.config(), {});
  FeedingOptions feeding = options.feeding;
  feeding.cache = options.reference_cache;
  Divergence d;
  {
    Progress progress("perplexity", "windows");
    d = measure_divergence(model, reference, text.tokens, text.begin, text.how, {feeding.cache_for(reference), feeding.chunk, nullptr},
                           [&](const Divergence& now, int64_t windows) { progress.update(now.model.windows, windows, so_far(now.model)); });
  }
  const double change = d.model.value / d.reference.value - 1;
  if (options.json) {
    Json json{{"model", json_of(d.model)}, {"reference", json_of(d.reference)}, {"change", change}, {"mean_kl", d.mean_kl}};
    json.update({{"kl_99", d.kl_99}, {"same_top", d.same_top}, {"context", text.how.context}, {"tokens", text.tokens.size()}});
    return put(json.dump(2) + "\n");
  }
  put(line_of(d.model, text));
  put(fmt::format(
      "reference  {:.4f}: {:+.2f} %\ndivergence {:.5f} nats on average, 99 % below {:.5f}\nlikeliest token the same: {:.2f} %\n",
      d.reference.value, 100 * change, d.mean_kl, d.kl_99, 100 * d.same_top));
}

void run(const Options& options) {
  const ModelSource source = open_model(options.model);
  const ModelConfig config = options.feeding.masked(source.config());
  const Tokenizer tokenizer = source.tokenizer();
  Text text{raw_prompt(tokenizer, read_text(options.text)).tokens, tokenizer.adds_begin() ? tokenizer.begin_token() : std::nullopt, {}};
  Model model = load_model(source, config, options.weights);
  keep_within(model, options.weights, options.feeding.cache_for(model), options.context, options.feeding.chunk);
  text.how.context = options.context;
  text.how.max_windows = options.max_windows;
  text.how.read_only = options.read_only;
  text.how.feed = {options.feeding.cache_for(model), options.feeding.chunk, open_adapter(model, options.adapter)};
  if (options.reference.empty()) return measure_alone(options, model, text);
  measure_beside(options, model, text);
}

}  // namespace

void add_perplexity(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, "perplexity", "how well a model predicts a text", R"(  hadal perplexity smollm2 -f book.txt
  hadal perplexity path/to/model -f book.txt --context 2048 --max-windows 20 --json
  hadal perplexity smollm2 --weights w4 -f book.txt --reference smollm2      what packing costs

Definition:
  The text becomes tokens, behind the begin token where the tokenizer wants one. They are cut into windows of --context tokens; a last
  partial window is dropped. Each window is read from an empty cache, its first token replaced by the begin token (where there is one).
  Of C tokens in a window, numbered from 0, those numbered C/2 + 1 to C - 1 (or from --read-only + 1) are scored, each given all that stand before it in the window.
  Perplexity is exp of the mean of -ln(probability) over all scored tokens of all windows; behind +- stands its standard error, as if
  predictions were independent. This is what the tool of the same name in llama.cpp computes by default.

With --reference the same windows are also read by another model, and for each prediction its distribution p is held against the model's q: the
divergence is the sum of p ln(p / q).)");
  add_model(command, options->model);
  add_text(command, options->text);
  command->add_option("--context", options->context, "tokens of a window")
      ->check(CLI::Range(int64_t(3), int64_t(1) << 31))
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--read-only", options->read_only,
                   "tokens of a window, from its beginning, after which nothing is scored; default: half")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N");
  command->add_option("--max-windows", options->max_windows, "stop after so many windows; 0: the whole text")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N")
      ->capture_default_str();
  add_adapter(command, options->adapter);
  add_feeding(command, options->feeding);
  add_weights(command, options->weights);
  add_memory(command, options->weights);
  command->add_option("--reference", options->reference, "a model to compare with, as it is stored")->type_name("MODEL");
  command->add_option("--reference-cache", options->reference_cache, "how the reference's keys and values are kept; default as for --cache")
      ->check(CLI::IsMember({"f32", "f16", "i8"}))
      ->type_name("TYPE");
  add_threads(command);
  add_json(command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace hadal
