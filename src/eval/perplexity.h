// How well a model predicts a text.
#pragma once
#include <functional>
#include <optional>
#include <span>

#include "eval/logits.h"

namespace hadal {

struct PerplexityOptions {
  int64_t context = 512;    // tokens of a window
  int64_t max_windows = 0;  // 0: all
  FeedOptions feed;
  std::optional<int64_t> read_only = {};  // tokens at a window's beginning after which nothing is scored; default: half of it
  int64_t first_scored() const { return read_only.value_or(context / 2); }  // the row whose prediction is the first that counts
};

struct Perplexity {
  int64_t windows = 0, scored = 0;  // scored: predictions that count
  double mean_nll = 0;              // natural logarithm, per prediction
  double value = 0;                 // exp(mean_nll)
  double standard_error = 0;        // of `value`, taking predictions as independent
};

// The text is cut into windows of `context` tokens, a last partial one being dropped. Each window is fed from an empty cache, its first
// token replaced by `begin` when there is one. Only the predictions of tokens read_only + 1 .. context - 1 of a window are scored.
// The same definition as llama.cpp's (tools/perplexity, without stride). `progress` is called after each window with the result so far and
// the number of windows. Error: fewer than one window, an id out of range, a window longer than the model's context or without a scored
// token.
Perplexity measure_perplexity(const Model& model, std::span<const int32_t> tokens, std::optional<int32_t> begin,
                              const PerplexityOptions& options,
                              const std::function<void(const Perplexity& so_far, int64_t windows)>& progress = {});

}  // namespace hadal
