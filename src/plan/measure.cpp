#include "plan/measure.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/pool.h"
#include "core/random.h"
#include "infer/forward.h"
#include "infer/sampler.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

int64_t rows_of(const Figure& f) { return KvCache::page_rows * ((f.depth + f.tokens + KvCache::page_rows - 1) / KvCache::page_rows); }

class Runner {  // the sequences of one figure
 public:
  Runner(const Model& model, const MeasureOptions& options, const Figure& figure)
      : model_(model),
        options_(options),
        figure_(figure),
        kv_(model.config, options.cache, rows_of(figure) * figure.batch, figure.batch),
        scratch_(model.config, figure.prefill ? std::min(options.chunk, figure.tokens) : std::max(figure.batch, KvCache::page_rows),
                 figure.batch),
        sequences_(size_t(figure.batch)) {
    for (KvRows& sequence : sequences_) CHECK(kv_.reserve(sequence, rows_of(figure)));
    if (!figure.prefill && figure.depth > 0) fill();
  }

  // The whole figure once.
  void run(Profile* profile) {
    if (figure_.prefill) return prefill(profile);
    rewind();
    for (int64_t i = 0; i < figure_.tokens; ++i) step(profile);
  }

  void rewind() {
    for (KvRows& sequence : sequences_) sequence.length = figure_.depth;
  }

  // One more token of every sequence.
  void step(Profile* profile) {
    std::vector<int32_t> tokens, wanted;
    std::vector<Segment> segments;
    for (KvRows& sequence : sequences_) {
      wanted.push_back(int32_t(tokens.size()));
      segments.push_back({&sequence, int64_t(tokens.size()), 1, sequence.length});
      tokens.push_back(any_token());
    }
    pass({tokens, segments, wanted}, profile);
  }

 private:
  int32_t any_token() { return int32_t(mix_bits(++drawn_) % uint64_t(model_.config.vocab)); }

  void pass(const Batch& batch, Profile* profile) {
    const Mat<float> logits = forward(model_, batch, kv_, scratch_, profile);
    Sampling greedy;
    greedy.temperature = 0;
    for (int64_t i = 0; i < logits.rows; ++i) (void)sample({logits.row(i), size_t(logits.cols)}, greedy, {}, {}, 0);
    if (profile) profile->lap(Phase::sampling);
    options_.between_passes();
  }

  void prefill(Profile* profile) {
    KvRows& sequence = sequences_.front();
    sequence.length = 0;
    std::vector<int32_t> tokens;
    for (int64_t at = 0; at < figure_.tokens; at += int64_t(tokens.size())) {
      tokens.resize(size_t(std::min(options_.chunk, figure_.tokens - at)));
      std::ranges::generate(tokens, [&] { return any_token(); });
      const Segment segment{&sequence, 0, int64_t(tokens.size()), at};
      const int32_t last = int32_t(tokens.size()) - 1;
      const bool ends = at + segment.rows == figure_.tokens;
      pass({tokens, {&segment, 1}, {&last, ends ? size_t(1) : size_t(0)}}, profile);
    }
  }

  // Memory that was never written is one page of zeros for all: every page is written here.
  void fill() {
    std::vector<int32_t> tokens(size_t(std::min(KvCache::page_rows, figure_.depth)));
    std::ranges::generate(tokens, [&] { return any_token(); });
    KvRows& first = sequences_.front();
    const Segment segment{&first, 0, int64_t(tokens.size()), 0};
    forward(model_, {tokens, {&segment, 1}, {}}, kv_, scratch_);
    pool().run(model_.config.layers * int64_t(sequences_.size()), [&](int64_t task) {
      const int64_t layer = task % model_.config.layers;
      const std::byte* filled = kv_.page(layer, first, 0);
      for (std::byte* page : kv_.pages_of(layer, sequences_[size_t(task / model_.config.layers)]))
        if (page != filled) std::memcpy(page, filled, size_t(kv_.page_bytes(layer)));
    });
  }

  const Model& model_;
  const MeasureOptions& options_;
  const Figure& figure_;
  KvCache kv_;
  Scratch scratch_;
  std::vector<KvRows> sequences_;
  uint64_t drawn_ = 0;
};

int64_t moe_layers(const ModelConfig& config) {
  int64_t count = 0;
  for (int64_t layer = 0; layer < config.layers; ++layer) count += config.is_moe(layer);
  return count;
}

PassShape shape_of(const Figure& f, int64_t passes) {
  if (f.prefill) return {.sequences = 1, .rows = f.tokens, .depth = 0, .wanted = 1};
  return {.sequences = f.batch, .rows = 1, .depth = double(f.depth) + double(passes - 1) / 2, .wanted = f.batch};
}

}  // namespace

int64_t cache_bytes(const Model& model, DType cache, const Figure& figure) {
  return KvCache::bytes(model.config, cache, rows_of(figure) * figure.batch, figure.batch);
}

void measure(const Model& model, const MeasureOptions& options, Figure& figure) {
  CHECK(figure.tokens > 0 && figure.batch > 0 && (!figure.prefill || (figure.batch == 1 && figure.depth == 0)));
  Runner runner(model, options, figure);
  // The first run finds cold caches and unmapped pages. A decode counts there how many experts its rows need.
  Profile first;
  runner.run(&first);
  PassShape shape = shape_of(figure, figure.tokens);
  const int64_t passes = figure.prefill ? 1 : figure.tokens, chosen_by = moe_layers(model.config) * passes;
  if (!figure.prefill && chosen_by > 0) shape.experts = double(first.experts) / double(chosen_by);
  const Work one = sum(work_of(model, options.cache, shape));
  figure.work = {};
  for (int64_t i = 0; i < passes; ++i) figure.work += one;
  figure.seconds = 1e30, figure.slowest = 0;
  for (int64_t i = 0; i < options.repeats; ++i) {
    const auto start = Clock::now();
    runner.run(nullptr);
    const double seconds = since(start);
    figure.seconds = std::min(figure.seconds, seconds);
    figure.slowest = std::max(figure.slowest, seconds);
  }
}

Breakdown profile(const Model& model, const MeasureOptions& options, const Figure& figure) {
  Runner runner(model, options, figure);
  const int64_t tries = figure.prefill ? options.repeats : std::max<int64_t>(options.repeats, 16);
  Breakdown best;
  double best_seconds = 1e30;
  pool().count_waiting(true);
  for (int64_t i = 0; i <= tries; ++i) {
    Profile profile;
    const auto start = Clock::now();
    runner.rewind();
    figure.prefill ? runner.run(&profile) : runner.step(&profile);
    const double seconds = since(start);
    if (i == 0 || seconds >= best_seconds) continue;
    best_seconds = seconds;
    best.time = profile;
  }
  pool().count_waiting(false);
  PassShape shape = shape_of(figure, 1);
  if (!figure.prefill && best.time.experts > 0) shape.experts = double(best.time.experts) / double(moe_layers(model.config));
  best.work = work_of(model, options.cache, shape);
  return best;
}

}  // namespace hadal
