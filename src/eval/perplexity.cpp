#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/pool.h"

namespace hadal {
namespace {

// -log softmax(logits)[target]
double negative_log_likelihood(const float* logits, int64_t vocab, int32_t target) {
  const float max = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += double(std::exp(logits[i] - max));
  return std::log(sum) + double(max) - double(logits[target]);
}

Perplexity summary(int64_t windows, int64_t scored, double sum, double sum_of_squares) {
  Perplexity result{windows, scored, sum / double(scored), 0, 0};
  result.value = std::exp(result.mean_nll);
  const double variance = sum_of_squares / double(scored) - result.mean_nll * result.mean_nll;
  if (scored > 1 && variance > 0) result.standard_error = result.value * std::sqrt(variance / double(scored - 1));
  return result;
}

}  // namespace

Perplexity measure_perplexity(const Model& model, std::span<const int32_t> tokens, std::optional<int32_t> begin,
                              const PerplexityOptions& options, const std::function<void(const Perplexity&, int64_t)>& progress) {
  const int64_t context = options.context, count = int64_t(tokens.size());
  if (context < 3 || context > model.config.context)
    throw Error("a window of {} tokens is out of range: expected 3 to {}, the model's context", context, model.config.context);
  int64_t windows = count / context;
  if (windows == 0) throw Error("the text has {} tokens: expected at least one window of {}", count, context);
  if (options.max_windows > 0) windows = std::min(windows, options.max_windows);

  Feeder feeder(model, options.feed, context);
  std::vector<int32_t> window(static_cast<size_t>(context));
  std::vector<double> losses(static_cast<size_t>(context));
  double sum = 0, sum_of_squares = 0;
  int64_t scored = 0;
  Perplexity result;
  for (int64_t w = 0; w < windows; ++w) {
    const std::span<const int32_t> text = tokens.subspan(size_t(w * context), size_t(context));
    std::copy(text.begin(), text.end(), window.begin());
    if (begin) window[0] = *begin;
    feeder.run(window, context / 2, context - 1, [&](int64_t row, Mat<float> logits) {
      pool().run(logits.rows, [&](int64_t r) {
        losses[size_t(row + r)] = negative_log_likelihood(logits.row(r), logits.cols, window[size_t(row + r + 1)]);
      });
    });
    for (int64_t row = context / 2; row < context - 1; ++row, ++scored) {
      sum += losses[size_t(row)];
      sum_of_squares += losses[size_t(row)] * losses[size_t(row)];
    }
    result = summary(w + 1, scored, sum, sum_of_squares);
    if (progress) progress(result, windows);
  }
  return result;
}

}  // namespace hadal
