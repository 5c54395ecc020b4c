// hadal bench: how fast prompts are read and replies are written.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "core/error.h"
#include "core/pool.h"
#include "infer/engine.h"
#include "infer/model.h"
#include "model/presets.h"
#include "plan/machine.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string model, preset;
  std::vector<int64_t> prompts{128, 512};
  int64_t generate = 32, repeat = 3;
  FeedingOptions feeding;
  bool json = false;
};

struct Result {
  const char* test;
  int64_t tokens, depth;  // depth: tokens in the cache when the test begins
  double rate, limit;     // tokens per second
};

int64_t bytes_in(const Weight& weight) { return bytes_of(weight.dtype, weight.rows * weight.cols); }

// Bytes of weights that one token reads: all matrices, but of the experts only those chosen and of the embedding table one row.
double active_bytes(const Model& model) {
  const ModelConfig& c = model.config;
  double sum = 0;
  Params<Weight> params = model.params;
  for_each_param(c, params, [&](const std::string& name, Shape, Role role, Weight& weight) {
    double share = 1;
    if (name.find(".mlp.experts.") != name.npos) share = double(c.moe.active) / double(c.moe.experts);
    if (role == Role::embedding && !c.tied_head) share = 1 / double(c.vocab);
    sum += share * double(bytes_in(weight));
  });
  return sum;
}

struct Timing {
  double prompt_seconds, reply_seconds;
};

// One request alone in the engine; the first token ends the reading of the prompt.
Timing time_once(Engine& engine, const std::vector<int32_t>& prompt, int64_t tokens) {
  const auto start = Clock::now();
  auto first = start, last = start;
  Request request;
  request.prompt = prompt;
  request.sampling.temperature = 0;
  request.max_tokens = tokens;
  request.on_token = [&](const Token&) {
    last = Clock::now();
    if (first == start) first = last;
    return true;
  };
  engine.submit(std::move(request));
  while (!interrupted() && engine.step()) {
  }
  if (interrupted()) throw Error("interrupted");
  return {std::chrono::duration<double>(first - start).count(), std::chrono::duration<double>(last - first).count()};
}

std::vector<int32_t> any_tokens(int64_t count, int64_t vocab) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  uint64_t state = 1;
  for (int32_t& token : tokens) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    token = int32_t((state >> 33) % uint64_t(vocab));
  }
  return tokens;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + int64_t(values.size() / 2), values.end());
  return values[values.size() / 2];
}

std::vector<std::string> row_of(const Result& r) {
  const std::string test = std::string(r.test) + (r.depth > 0 ? fmt::format(" behind {}", r.depth) : "");
  return {test, with_commas(r.tokens), as_rate(r.rate), as_rate(r.limit), fmt::format("{:.0f} %", 100 * r.rate / r.limit)};
}

std::vector<Result> measure(const Options& options, const Model& model, const Machine& machine) {
  const double decode_limit = machine.read_all / active_bytes(model);
  const double prefill_limit = machine.flops_all / (2 * double(count_parameters(model.config).active));
  std::vector<Result> results;
  for (const int64_t prompt : options.prompts) {
    if (prompt + options.generate > model.config.context)
      throw Error("{} prompt tokens and {} more do not fit the model's context of {}", prompt, options.generate, model.config.context);
    EngineOptions how;
    how.cache = options.feeding.cache_for(model);
    how.cache_rows = prompt + options.generate;
    how.max_rows = how.prompt_chunk = options.feeding.chunk;
    Engine engine(model, how);
    const std::vector<int32_t> tokens = any_tokens(prompt, model.config.vocab);
    std::vector<double> prefill, decode;
    for (int64_t i = 0; i <= options.repeat; ++i) {
      const Timing t = time_once(engine, tokens, options.generate);
      if (i == 0) continue;  // the first run finds cold caches and unmapped pages
      prefill.push_back(double(prompt) / t.prompt_seconds);
      if (options.generate > 1) decode.push_back(double(options.generate - 1) / t.reply_seconds);
    }
    results.push_back({"prefill", prompt, 0, median(prefill), prefill_limit});
    if (!decode.empty()) results.push_back({"decode", options.generate - 1, prompt, median(decode), decode_limit});
  }
  return results;
}

void run(const Options& options) {
  if (options.model.empty() == options.preset.empty()) throw CLI::ValidationError("expected a MODEL or --preset NAME, one of the two");
  Model model;
  if (!options.preset.empty()) {
    model = random_model(preset(options.preset), DType::bf16, 1);
  } else {
    const ModelSource source = open_model(options.model);
    model = load_model(source.config(), source.checkpoint());
  }
  InterruptGuard guard;
  const Machine machine = probe_machine(true);
  const std::vector<Result> results = measure(options, model, machine);
  if (options.json) {
    Json json{{"model", options.model.empty() ? options.preset : options.model}, {"threads", pool().threads()}};
    json["machine"] = {{"cpu", machine.cpu}, {"isa", machine.isa}, {"read_bandwidth", machine.read_all}, {"peak_flops", machine.flops_all}};
    for (const Result& r : results)
      json["results"].push_back({{"test", r.test},
                                 {"tokens", r.tokens},
                                 {"depth", r.depth},
                                 {"batch", 1},
                                 {"tokens_per_second", r.rate},
                                 {"limit", r.limit},
                                 {"share", r.rate / r.limit}});
    return put(json.dump(2) + "\n");
  }
  std::vector<std::vector<std::string>> rows{{"test", "tokens", "tokens/s", "limit", "share"}};
  for (const Result& r : results) rows.push_back(row_of(r));
  put(table(rows, "lrrrr"));
  note(fmt::format("{} threads, {}; measured: reads {}/s, peak {:.3g} GFLOPS in f32", pool().threads(), machine.isa,
                   as_bytes(machine.read_all), machine.flops_all / 1e9));
}

}  // namespace

void add_bench(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      add_command(app, "bench", "how fast prompts are read (prefill) and replies are written (decode)", R"(  hadal bench smollm2
  hadal bench path/to/model --prompt 128,2048 --generate 64 --threads 2
  hadal bench --preset coder-1.3b --json        a published shape with random bf16 weights

Each line is the median of --repeat runs after one that is not counted; one sequence, greedy, sampling included.
limit: decode, measured read bandwidth / bytes of the weights that a token needs; prefill, measured peak / (2 x active parameters).)");
  add_model(command, options->model)->required(false);
  command->add_option("--preset", options->preset, "a shape of `hadal presets`, with random weights")->type_name("NAME");
  command->add_option("--prompt", options->prompts, "lengths of prompts")
      ->delimiter(',')
      ->check(CLI::Range(int64_t(1), int64_t(1) << 24))
      ->type_name("N,N")
      ->capture_default_str();
  command->add_option("--generate", options->generate, "tokens of each reply")
      ->check(CLI::Range(int64_t(1), int64_t(1) << 24))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--repeat", options->repeat, "runs that count")->check(CLI::Range(1, 1000))->type_name("N")->capture_default_str();
  add_feeding(command, options->feeding);
  add_threads(command);
  add_json(command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace hadal
