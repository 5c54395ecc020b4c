#include "eval/divergence.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/pool.h"
#include "eval/windows.h"

namespace hadal {
namespace {

// ln of the sum of exp.
double log_sum(const float* logits, int64_t vocab) {
  const float max = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += double(std::exp(logits[i] - max));
  return std::log(sum) + double(max);
}

struct Prediction {
  double nll_model, nll_reference, kl;
  bool same_top;
};

Prediction compare(const float* q, const float* p, int64_t vocab, int32_t target) {
  const double norm_q = log_sum(q, vocab), norm_p = log_sum(p, vocab);
  double kl = 0;
  for (int64_t i = 0; i < vocab; ++i) {
    const double log_p = double(p[i]) - norm_p;
    kl += std::exp(log_p) * (log_p - (double(q[i]) - norm_q));
  }
  const bool same = std::max_element(q, q + vocab) - q == std::max_element(p, p + vocab) - p;
  return {norm_q - double(q[target]), norm_p - double(p[target]), kl, same};
}

}  // namespace

Divergence measure_divergence(const Model& model, const Model& reference, std::span<const int32_t> tokens, std::optional<int32_t> begin,
                              const PerplexityOptions& options, const FeedOptions& reference_feed,
                              const std::function<void(const Divergence&, int64_t)>& progress) {
  if (model.config.vocab != reference.config.vocab)
    throw Error("the reference has a vocabulary of {} tokens: expected the model's {}", reference.config.vocab, model.config.vocab);
  const Windows windows(tokens, begin, options, std::min(model.config.context, reference.config.context));
  const int64_t context = options.context, first = options.first_scored(), scored = context - 1 - first, vocab = model.config.vocab;
  Feeder feeder(model, options.feed, context), reference_feeder(reference, reference_feed, context);
  std::vector<float> expected(static_cast<size_t>(scored * vocab));  // the reference's logits of one window
  std::vector<Prediction> predictions(static_cast<size_t>(scored));
  std::vector<double> divergences;
  LossSum of_model, of_reference;
  Divergence result;
  int64_t same = 0;
  double kl = 0;
  for (int64_t w = 0; w < windows.count(); ++w) {
    const std::vector<int32_t> window = windows.at(w);
    reference_feeder.run(window, first, context - 1, [&](int64_t row, Mat<float> logits) {
      for (int64_t r = 0; r < logits.rows; ++r) std::copy_n(logits.row(r), vocab, expected.data() + (row + r - first) * vocab);
    });
    feeder.run(window, first, context - 1, [&](int64_t row, Mat<float> logits) {
      pool().run(logits.rows, [&](int64_t r) {
        const int64_t at = row + r - first;
        predictions[size_t(at)] = compare(logits.row(r), expected.data() + at * vocab, vocab, window[size_t(row + r + 1)]);
      });
    });
    for (const Prediction& p : predictions) {
      of_model.add(p.nll_model);
      of_reference.add(p.nll_reference);
      kl += p.kl, same += p.same_top;
      divergences.push_back(p.kl);
    }
    result.model = of_model.summary(w + 1);
    result.reference = of_reference.summary(w + 1);
    result.mean_kl = kl / double(divergences.size());
    result.same_top = double(same) / double(divergences.size());
    if (progress) progress(result, windows.count());
  }
  const auto at = divergences.begin() + std::ptrdiff_t(double(divergences.size() - 1) * 0.99);
  std::nth_element(divergences.begin(), at, divergences.end());
  result.kl_99 = *at;
  return result;
}

}  // namespace hadal
