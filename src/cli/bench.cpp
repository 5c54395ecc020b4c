// hadal bench: how fast prompts are read and replies are written, beside what the machine allows.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "core/error.h"
#include "core/memory.h"
#include "infer/model.h"
#include "model/presets.h"
#include "plan/measure.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string model, preset;
  std::vector<int64_t> prompts{128, 512}, depths{0}, batches{1};
  int64_t generate = 32, repeat = 3;
  FeedingOptions feeding;
  WeightOptions weights;
  bool profile = false, json = false;
};

std::string name_of(const Figure& f, bool one_token = false) {
  if (f.prefill) return fmt::format("prefill of {} tokens", with_commas(f.tokens));
  return fmt::format("decode of {} behind {}, batch {}", one_token ? "one token" : fmt::format("{} tokens", f.tokens), with_commas(f.depth),
                     f.batch);
}

std::vector<Figure> figures_of(const Options& options, const Model& model, DType cache) {
  std::vector<Figure> figures;
  for (const int64_t prompt : options.prompts)
    if (prompt > 0) figures.push_back({.prefill = true, .tokens = prompt});
  for (const int64_t depth : options.depths)
    for (const int64_t batch : options.batches)
      if (options.generate > 0) figures.push_back({.tokens = options.generate, .depth = depth, .batch = batch});
  if (figures.empty()) throw CLI::ValidationError("nothing to measure: --prompt 0 leaves prefill out, --generate 0 leaves decode out");
  for (const Figure& f : figures) {  // known before the first is measured, not after minutes
    const int64_t context = model.config.context, rows = f.prefill ? f.tokens : f.depth;
    if (rows > context && !model.config.forgets())
      throw Error("{}: {} tokens do not fit the model's context of {}", name_of(f), rows, context);
    if (const int64_t bytes = cache_bytes(model, cache, f); bytes > int64_t(available_memory()))
      throw Error("{}: not enough memory for keys and values: needs {}, {} are free", name_of(f), as_bytes(double(bytes)),
                  as_bytes(double(available_memory())));
  }
  return figures;
}

std::vector<std::string> row_of(const Figure& f) {
  return {f.prefill ? "prefill" : "decode",
          with_commas(f.tokens),
          with_commas(f.depth),
          with_commas(f.batch),
          as_rate(f.rate()),
          fmt::format("{:.0f} %", 100 * f.spread()),
          as_rate(f.limit()),
          fmt::format("{:.0f} %", 100 * f.share())};
}

Json json_of(const Figure& f) {
  return {{"test", f.prefill ? "prefill" : "decode"},
          {"tokens", f.tokens},
          {"depth", f.depth},
          {"batch", f.batch},
          {"tokens_per_second", f.rate()},
          {"limit", f.limit()},
          {"share", f.share()}};
}

double total(const std::array<double, phases>& parts) { return std::accumulate(parts.begin(), parts.end(), 0.); }

double ops(const Work& work) { return work.float_ops + work.integer_ops; }

std::string profile_table(const Breakdown& b, const Machine& machine) {
  std::vector<std::vector<std::string>> rows{{"phase", "ms", "share", "waiting", "GB/s", "GOPS", "of limit"}};
  const auto add = [&](std::string_view name, double seconds, double waiting, const Work& work) {
    const auto rate = [&](double amount) { return amount > 0 ? as_rate(amount / seconds / 1e9) : "-"; };
    const double least = least_seconds(machine, work);
    rows.push_back({std::string(name), fmt::format("{:.3f}", 1e3 * seconds), fmt::format("{:.1f} %", 100 * seconds / total(b.time.seconds)),
                    fmt::format("{:.0f} %", 100 * waiting / seconds), rate(work.bytes), rate(ops(work)),
                    least > 0 ? fmt::format("{:.0f} %", 100 * least / seconds) : "-"});
  };
  for (int i = 0; i < phases; ++i)
    if (b.time.seconds[size_t(i)] > 0) add(name_of(Phase(i)), b.time.seconds[size_t(i)], b.time.waiting[size_t(i)], b.work[size_t(i)]);
  add("all", total(b.time.seconds), total(b.time.waiting), sum(b.work));
  return table(rows, "lrrrrrr");
}

Json profile_json(const Figure& f, const Breakdown& b, const Machine& machine) {
  Json json{{"test", f.prefill ? "prefill" : "decode"}, {"tokens", f.prefill ? f.tokens : 1}, {"depth", f.depth}, {"batch", f.batch}};
  for (int i = 0; i < phases; ++i) {
    const Work& work = b.work[size_t(i)];
    json["phases"].push_back({{"phase", name_of(Phase(i))},
                              {"seconds", b.time.seconds[size_t(i)]},
                              {"waiting", b.time.waiting[size_t(i)]},
                              {"share", b.time.seconds[size_t(i)] / total(b.time.seconds)},
                              {"bytes", work.bytes},
                              {"operations", ops(work)},
                              {"least_seconds", least_seconds(machine, work)}});
  }
  return json;
}

Json machine_json(const Machine& m) {
  return {{"cpu", m.cpu},         {"isa", m.isa}, {"threads", m.threads}, {"read_bandwidth", m.read_all}, {"peak_flops", m.flops_all},
          {"peak_ops", m.ops_all}};
}

// The first prefill and the first decode of those wanted.
std::vector<Figure> profiled(const std::vector<Figure>& figures) {
  std::vector<Figure> chosen;
  for (const bool prefill : {false, true})
    if (const auto at = std::ranges::find(figures, prefill, &Figure::prefill); at != figures.end()) chosen.push_back(*at);
  return chosen;
}

Model model_of(const Options& options) {
  if (options.model.empty() == options.preset.empty()) throw CLI::ValidationError("expected a MODEL or --preset NAME, one of the two");
  if (options.preset.empty()) {
    const ModelSource source = open_model(options.model);
    return load_model(source, options.feeding.masked(source.config()), options.weights);
  }
  if (options.weights.memory > 0)
    throw CLI::ValidationError("--memory wants a MODEL with files to read from (`hadal quantize --preset` writes one)");
  return random_model(options.feeding.masked(preset(options.preset)), recipe_of(options.weights), 1);
}

// Fills in the figures; with `profiles` returns where the time of each went.
std::vector<Breakdown> measure_all(const Model& model, MeasureOptions how, std::vector<Figure>& figures, bool profiles) {
  std::vector<Breakdown> breakdowns;
  Progress progress("bench", profiles ? "profiles" : "figures");
  int64_t done = 0;
  how.between_passes = [&] {
    if (interrupted()) throw Error("interrupted");
    progress.update(done, int64_t(figures.size()), name_of(figures[size_t(done)]));
  };
  for (Figure& f : figures) {
    if (profiles)
      breakdowns.push_back(profile(model, how, f));
    else
      measure(model, how, f);
    ++done;
  }
  return breakdowns;
}

std::string text_of(const std::vector<Figure>& figures) {
  std::vector<std::vector<std::string>> rows{{"test", "tokens", "depth", "batch", "tokens/s", "spread", "limit", "share"}};
  for (const Figure& f : figures) rows.push_back(row_of(f));
  return table(rows, "lrrrrrrr");
}

std::string text_of(const std::vector<Figure>& figures, const std::vector<Breakdown>& breakdowns, const Machine& machine) {
  std::string text;
  for (size_t i = 0; i < figures.size(); ++i)
    text += (i > 0 ? "\n" : "") + name_of(figures[i], true) + "\n" + profile_table(breakdowns[i], machine);
  return text;
}

// Of the figures, or of their profiles where there are some.
Json json_of(const std::vector<Figure>& figures, const std::vector<Breakdown>& breakdowns, const Machine& machine) {
  Json json{{"machine", machine_json(machine)}, {"results", Json::array()}};
  for (size_t i = 0; i < breakdowns.size(); ++i) json["profiles"].push_back(profile_json(figures[i], breakdowns[i], machine));
  if (!breakdowns.empty()) return json;
  for (const Figure& f : figures) {
    json["results"].push_back(json_of(f));
    json["spread"].push_back(f.spread());
  }
  return json;
}

void run(const Options& options) {
  Model model = model_of(options);
  InterruptGuard guard;
  const MeasureOptions how{.cache = options.feeding.cache_for(model), .chunk = options.feeding.chunk, .repeats = options.repeat};
  std::vector<Figure> figures = figures_of(options, model, how.cache);
  int64_t most_rows = 0;  // of the cache
  for (const Figure& f : figures) most_rows = std::max(most_rows, (f.depth + f.tokens) * f.batch);
  keep_within(model, options.weights, how.cache, most_rows, how.chunk);
  if (options.profile) figures = profiled(figures);
  Machine machine = probe_machine(true);
  const std::vector<Breakdown> breakdowns = measure_all(model, how, figures, options.profile);
  keep_best(machine, probe_machine(true));  // machines have their moments
  for (Figure& f : figures) f.least = least_seconds(machine, f.work);
  if (options.json) return put(json_of(figures, breakdowns, machine).dump(2) + "\n");
  put(options.profile ? text_of(figures, breakdowns, machine) : text_of(figures));
  note(fmt::format("{} threads, {}; measured: reads {}/s, peak {} GFLOPS in f32, {} GOPS in int8", machine.threads, machine.isa,
                   as_bytes(machine.read_all), as_rate(machine.flops_all / 1e9), as_rate(machine.ops_all / 1e9)));
}

CLI::Option* add_counts(CLI::App* command, const std::string& name, std::vector<int64_t>& counts, int64_t least, const std::string& what) {
  return command->add_option(name, counts, what)
      ->delimiter(',')
      ->check(CLI::Range(least, int64_t(1) << 24))
      ->type_name("N,N")
      ->capture_default_str();
}

}  // namespace

void add_bench(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      add_command(app, "bench", "how fast prompts are read (prefill) and replies are written (decode)", R"(  hadal bench smollm2
  hadal bench path/to/model --prompt 512,2048 --generate 64 --depth 0,8192 --batch 1,8
  hadal bench --preset coder-1.3b --json        a published shape with random weights
  hadal bench smollm2 --profile                 where one token and one prefill spend their time

Each line is the fastest of --repeat runs after one that is not counted, of all sequences of the batch together, sampling included; spread: how
much longer the slowest took. A depth is tokens in the cache before the clock starts; it is filled with copies of one computed page.
limit: what the machine allows, as measured now: the bytes of weights and cached rows that must be read, by the read bandwidth, or the operations,
by the peak of the unit that does them, whichever takes longer.)");
  add_model(command, options->model)->required(false);
  command->add_option("--preset", options->preset, "a shape of `hadal presets`, with random weights")->type_name("NAME");
  add_counts(command, "--prompt", options->prompts, 0, "lengths of prompts; 0: none");
  command->add_option("--generate", options->generate, "tokens of each reply; 0: none")
      ->check(CLI::Range(int64_t(0), int64_t(1) << 24))
      ->type_name("N")
      ->capture_default_str();
  add_counts(command, "--depth", options->depths, 0, "tokens in the cache before each reply");
  add_counts(command, "--batch", options->batches, 1, "replies written together");
  command->add_option("--repeat", options->repeat, "runs that count")->check(CLI::Range(1, 1000))->type_name("N")->capture_default_str();
  command->add_flag("--profile", options->profile, "one token and one prefill, phase by phase");
  add_feeding(command, options->feeding);
  add_weights(command, options->weights);
  add_memory(command, options->weights);
  add_threads(command);
  add_json(command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace hadal
