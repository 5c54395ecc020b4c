// A text cut into windows, and the sum of what is lost in them: shared by the measures of this folder.
#pragma once
#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <vector>

#include "core/error.h"
#include "eval/perplexity.h"

namespace hadal {

// -log softmax(logits)[target]
inline double negative_log_likelihood(const float* logits, int64_t vocab, int32_t target) {
  const float max = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += double(std::exp(logits[i] - max));
  return std::log(sum) + double(max) - double(logits[target]);
}

class Windows {  // see measure_perplexity
 public:
  // Error: fewer than one window, or a window that `longest` tokens of context do not hold.
  Windows(std::span<const int32_t> tokens, std::optional<int32_t> begin, const PerplexityOptions& options, int64_t longest)
      : tokens_(tokens), begin_(begin), context_(options.context) {
    if (context_ < 3 || context_ > longest)
      throw Error("a window of {} tokens is out of range: expected 3 to {}, the model's context", context_, longest);
    if (const int64_t first = options.first_scored(); first < 0 || first > context_ - 2)
      throw Error("{} tokens of a window are only read: expected 0 to {}, so that something is scored", first, context_ - 2);
    count_ = int64_t(tokens.size()) / context_;
    if (count_ == 0) throw Error("the text has {} tokens: expected at least one window of {}", tokens.size(), context_);
    if (options.max_windows > 0) count_ = std::min(count_, options.max_windows);
  }
  int64_t count() const { return count_; }
  std::vector<int32_t> at(int64_t window) const {
    const auto text = tokens_.subspan(size_t(window * context_), size_t(context_));
    std::vector<int32_t> ids(text.begin(), text.end());
    if (begin_) ids[0] = *begin_;
    return ids;
  }

 private:
  std::span<const int32_t> tokens_;
  std::optional<int32_t> begin_;
  int64_t context_, count_;
};

class LossSum {  // of -ln(probability)
 public:
  void add(double loss) { ++scored_, sum_ += loss, squares_ += loss * loss; }
  Perplexity summary(int64_t windows) const {
    Perplexity result{windows, scored_, sum_ / double(scored_), 0, 0};
    result.value = std::exp(result.mean_nll);
    const double variance = squares_ / double(scored_) - result.mean_nll * result.mean_nll;
    if (scored_ > 1 && variance > 0) result.standard_error = result.value * std::sqrt(variance / double(scored_ - 1));
    return result;
  }

 private:
  int64_t scored_ = 0;
  double sum_ = 0, squares_ = 0;
};

}  // namespace hadal
