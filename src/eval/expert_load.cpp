#include "eval/expert_load.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/pool.h"
#include "eval/windows.h"
#include "infer/expert_load.h"

namespace hadal {
namespace {

constexpr int64_t batch_rows = 16'384;

void check_mixture(const ModelConfig& config) {
  if (config.moe.experts == 0) throw Error("expected a mixture of experts, found a dense {} model", config.family);
}

std::vector<int64_t> layers_with_experts(const ModelConfig& config) {
  std::vector<int64_t> layers;
  for (int64_t layer = 0; layer < config.layers; ++layer)
    if (config.is_moe(layer)) layers.push_back(layer);
  return layers;
}

// Feeds the windows of these numbers; returns the mean loss, 0 where no logits are asked for.
double feed(const Model& model, const Windows& windows, std::span<const int64_t> numbers, const BalanceOptions& options,
            const std::function<void(int64_t done)>& behind) {
  Feeder feeder(model, options.feed, options.context);
  const int64_t end = options.context - 1, first = options.loss ? 0 : options.context;
  std::vector<double> losses(static_cast<size_t>(end));
  double sum = 0;
  for (size_t i = 0; i < numbers.size(); ++i) {
    const std::vector<int32_t> window = windows.at(numbers[i]);
    feeder.run(window, first, options.loss ? end : options.context, [&](int64_t row, Mat<float> logits) {
      pool().run(logits.rows, [&](int64_t r) {
        losses[size_t(row + r)] = negative_log_likelihood(logits.row(r), logits.cols, window[size_t(row + r + 1)]);
      });
    });
    sum += std::accumulate(losses.begin(), losses.end(), 0.);
    behind(int64_t(i) + 1);
  }
  return sum / double(std::max<int64_t>(1, int64_t(numbers.size()) * end));
}

PerplexityOptions as_windows(const BalanceOptions& options) {
  return {.context = options.context, .max_windows = options.max_windows, .feed = {}};
}

std::vector<int64_t> every(int64_t step, int64_t first, int64_t count) {
  std::vector<int64_t> numbers;
  for (int64_t n = first; n < count; n += step) numbers.push_back(n);
  return numbers;
}

class Batches {  // of one layer: what came since the last look
 public:
  explicit Batches(size_t experts) : before_(experts, 0) {}
  void look(std::span<const int64_t> load, int64_t active) {
    std::vector<int64_t> own(load.begin(), load.end());
    for (size_t e = 0; e < own.size(); ++e) own[e] -= before_[e];
    before_.assign(load.begin(), load.end());
    worst = std::max(worst, load_figures(own, active).max_violation);
  }
  double worst = 0;

 private:
  std::vector<int64_t> before_;
};

std::vector<int64_t> load_of(const ExpertLoad& all, int64_t layer) {
  std::vector<int64_t> load;
  for (int64_t e = 0; e < all.experts(); ++e) load.push_back(all.rows(layer, e));
  return load;
}

using Scores = std::vector<std::vector<float>>;  // of each layer, rows one after the other

Scores record(const Model& model, const Windows& windows, std::span<const int64_t> numbers, const BalanceOptions& options,
              const WindowsDone& progress) {
  Scores scores(static_cast<size_t>(model.config.layers));
  Model watched = model;
  watched.watch_routers = [&](int64_t layer, Mat<const float> s) {
    if (layer >= int64_t(scores.size())) return;
    for (int64_t r = 0; r < s.rows; ++r) scores[size_t(layer)].insert(scores[size_t(layer)].end(), s.row(r), s.row(r) + s.cols);
  };
  BalanceOptions silent = options;
  silent.loss = false;
  feed(watched, windows, numbers, silent, [&](int64_t done) {
    if (progress) progress(done, int64_t(numbers.size()));
  });
  return scores;
}

}  // namespace

TextLoad measure_load(const Model& model, std::span<const int32_t> tokens, std::optional<int32_t> begin, const BalanceOptions& options,
                      const WindowsDone& progress) {
  check_mixture(model.config);
  const Windows windows(tokens, begin, as_windows(options), model.config.context);
  const std::vector<int64_t> numbers = every(options.every_second ? 2 : 1, 0, windows.count()), layers = layers_with_experts(model.config);
  Model counted = model;
  counted.load = std::make_shared<ExpertLoad>(model.config.layers, model.config.moe.experts);
  std::vector<Batches> batches(layers.size(), Batches(size_t(model.config.moe.experts)));
  const int64_t per_batch = std::max<int64_t>(1, batch_rows / options.context);
  const double loss = feed(counted, windows, numbers, options, [&](int64_t done) {
    for (size_t i = 0; done % per_batch == 0 && i < layers.size(); ++i)
      batches[i].look(load_of(*counted.load, layers[i]), model.config.moe.active);
    if (progress) progress(done, int64_t(numbers.size()));
  });
  TextLoad result{{}, loss};
  for (size_t i = 0; i < layers.size(); ++i) {
    std::vector<int64_t> load = load_of(*counted.load, layers[i]);
    const LoadFigures figures = load_figures(load, model.config.moe.active);
    result.layers.push_back({layers[i], std::move(load), figures, batches[i].worst});
  }
  return result;
}

std::vector<LayerBias> calibrate_biases(const Model& model, std::span<const int32_t> tokens, std::optional<int32_t> begin,
                                        const BalanceOptions& options, const CalibrationOptions& how, const WindowsDone& progress) {
  check_mixture(model.config);
  const MoeConfig& moe = model.config.moe;
  if (!moe.bias)
    throw Error(
        "this router has no selection bias to calibrate: expected a model whose topk_method is noaux_tc, which training with "
        "[balance] kind = \"bias\" or \"quantile\" makes");
  const Windows windows(tokens, begin, as_windows(options), model.config.context);
  if (windows.count() < 2)
    throw Error("the text has {} window of {} tokens: expected two or more, to fit on one and measure on another", windows.count(),
                options.context);
  const std::vector<int64_t> layers = layers_with_experts(model.config);
  const int64_t bytes_of_window = options.context * moe.experts * int64_t(sizeof(float)) * int64_t(layers.size());
  const int64_t most = std::max<int64_t>(1, how.most_bytes / bytes_of_window);
  std::vector<int64_t> numbers = every(2, 1, windows.count());
  while (int64_t(numbers.size()) > most) {  // every second of them
    for (size_t i = 0; 2 * i < numbers.size(); ++i) numbers[i] = numbers[2 * i];
    numbers.resize((numbers.size() + 1) / 2);
  }
  std::vector<LayerBias> biases;
  for (const int64_t layer : layers) {
    if (layer < moe.hash_layers) continue;  // tokens choose there
    const float* bias = std::get<Moe<Weight>>(model.params.blocks[size_t(layer)].ffn).bias.as_f32();
    biases.push_back({layer, {bias, bias + moe.experts}});
  }
  for (int64_t round = 0; round < how.rounds; ++round) {
    if (how.started) how.started(round);
    const Scores scores = record(with_biases(model, biases), windows, numbers, options, progress);
    for (LayerBias& b : biases) {
      const std::vector<float>& s = scores[size_t(b.layer)];
      fit_selection_bias({s.data(), int64_t(s.size()) / moe.experts, moe.experts, moe.experts}, moe, b.bias);
    }
  }
  return biases;
}

Model with_biases(const Model& model, const std::vector<LayerBias>& biases) {
  Model changed = model;
  for (const LayerBias& b : biases) {
    const auto kept = std::make_shared<const std::vector<float>>(b.bias);
    changed.bytes.push_back(kept);
    std::get<Moe<Weight>>(changed.params.blocks[size_t(b.layer)].ffn).bias.data = reinterpret_cast<const std::byte*>(kept->data());
  }
  return changed;
}

}  // namespace hadal
