// How far a model's predictions are from a reference's: what packing, or a smaller cache, costs.
#pragma once
#include "eval/perplexity.h"

namespace hadal {

struct Divergence {
  Perplexity model, reference;
  double mean_kl = 0;   // nats: mean over predictions of sum p ln(p / q), p the reference's probabilities, q the model's
  double kl_99 = 0;     // 99 of 100 predictions lie below
  double same_top = 0;  // share of predictions whose likeliest token is the same
};

// Windows and scored predictions as in measure_perplexity, both models reading the same tokens. Error: vocabularies that differ.
Divergence measure_divergence(const Model& model, const Model& reference, std::span<const int32_t> tokens, std::optional<int32_t> begin,
                              const PerplexityOptions& options, const FeedOptions& reference_feed,
                              const std::function<void(const Divergence& so_far, int64_t windows)>& progress = {});

}  // namespace hadal
