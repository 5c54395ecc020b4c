// What training makes small, from the last layer's output on. Logits exist for a few rows at a time: their gradient is taken on the way
// forward.
#pragma once
#include <functional>

#include "train/forward.h"

namespace hadal::train {

// The summed loss of some rows, the first of them being row `first`; logits [rows, vocab] become its gradient.
using LossOfLogits = std::function<double(Tensor& logits, int64_t first)>;
// The sum of `loss` over x head^T, at most `chunk` rows at a time. x [rows, dim], head [vocab, dim].
Tensor chunked_loss(const Tensor& x, const Tensor& head, int64_t chunk, const LossOfLogits& loss);

// Sum over the rows of weight * -log p(target). x [.., dim] is what left the last layer, norm the one behind it; targets int64 and weights
// float32 [..].
Tensor next_token_loss(const Params<Tensor>& params, const Tensor& norm, const Tensor& x, const Tensor& targets, const Tensor& weights,
                       const ModelConfig& config);

}  // namespace hadal::train
