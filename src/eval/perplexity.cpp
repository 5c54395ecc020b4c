#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/pool.h"
#include "eval/windows.h"

namespace hadal {

Perplexity measure_perplexity(const Model& model, std::span<const int32_t> tokens, std::optional<int32_t> begin,
                              const PerplexityOptions& options, const std::function<void(const Perplexity&, int64_t)>& progress) {
  const Windows windows(tokens, begin, options, model.config.context);
  const int64_t context = options.context;
  Feeder feeder(model, options.feed, context);
  std::vector<double> losses(static_cast<size_t>(context));
  LossSum sum;
  Perplexity result;
  for (int64_t w = 0; w < windows.count(); ++w) {
    const std::vector<int32_t> window = windows.at(w);
    feeder.run(window, options.first_scored(), context - 1, [&](int64_t row, Mat<float> logits) {
      pool().run(logits.rows, [&](int64_t r) {
        losses[size_t(row + r)] = negative_log_likelihood(logits.row(r), logits.cols, window[size_t(row + r + 1)]);
      });
    });
    for (int64_t row = options.first_scored(); row < context - 1; ++row) sum.add(losses[size_t(row)]);
    result = sum.summary(w + 1);
    if (progress) progress(result, windows.count());
  }
  return result;
}

}  // namespace hadal
