// hadal perplexity: how well a model predicts a text.
#include "eval/perplexity.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/prompt.h"
#include "core/error.h"

namespace hadal {
namespace {

struct Options {
  std::string model;
  TextOptions text;
  FeedingOptions feeding;
  WeightOptions weights;
  int64_t context = 512, max_windows = 0;
  bool json = false;
};

void run(const Options& options) {
  const ModelSource source = open_model(options.model);
  const ModelConfig config = source.config();
  const Tokenizer tokenizer = source.tokenizer();
  const std::vector<int32_t> tokens = raw_prompt(tokenizer, read_text(options.text)).tokens;
  const Model model = load_model(source, config, options.weights);
  PerplexityOptions how;
  how.context = options.context;
  how.max_windows = options.max_windows;
  how.feed = {options.feeding.cache_for(model), options.feeding.chunk};
  const std::optional<int32_t> begin = tokenizer.adds_begin() ? tokenizer.begin_token() : std::nullopt;
  Perplexity result;
  {
    Progress progress("perplexity", "windows");
    result = measure_perplexity(model, tokens, begin, how, [&](const Perplexity& so_far, int64_t windows) {
      progress.update(so_far.windows, windows, fmt::format("so far {:.4f}", so_far.value));
    });
  }
  if (options.json) {
    const nlohmann::ordered_json json{{"perplexity", result.value},  {"standard_error", result.standard_error},
                                      {"mean_nll", result.mean_nll}, {"scored", result.scored},
                                      {"windows", result.windows},   {"context", options.context},
                                      {"tokens", tokens.size()}};
    return put(json.dump(2) + "\n");
  }
  put(fmt::format("perplexity {:.4f} +- {:.4f}  ({} predictions in {} windows of {} tokens; the text has {} tokens)\n", result.value,
                  result.standard_error, with_commas(result.scored), with_commas(result.windows), with_commas(options.context),
                  with_commas(int64_t(tokens.size()))));
}

}  // namespace

void add_perplexity(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, "perplexity", "how well a model predicts a text", R"(  hadal perplexity smollm2 -f book.txt
  hadal perplexity path/to/model -f book.txt --context 2048 --max-windows 20 --json

Definition:
  The text becomes tokens, behind the begin token where the tokenizer wants one. They are cut into windows of --context tokens; a last
  partial window is dropped. Each window is read from an empty cache, its first token replaced by the begin token (where there is one).
  Of C tokens in a window, numbered from 0, those numbered C/2 + 1 to C - 1 are scored, each given all that stand before it in the window.
  Perplexity is exp of the mean of -ln(probability) over all scored tokens of all windows; behind +- stands its standard error, as if
  predictions were independent. This is what the tool of the same name in llama.cpp computes by default.)");
  add_model(command, options->model);
  add_text(command, options->text);
  command->add_option("--context", options->context, "tokens of a window")
      ->check(CLI::Range(int64_t(3), int64_t(1) << 31))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--max-windows", options->max_windows, "stop after so many windows; 0: the whole text")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N")
      ->capture_default_str();
  add_feeding(command, options->feeding);
  add_weights(command, options->weights);
  add_threads(command);
  add_json(command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace hadal
