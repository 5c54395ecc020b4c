// What training makes small.
#pragma once
#include "train/forward.h"

namespace hadal::train {

// Sum over the rows of weight * -log p(target). x [.., dim] is what left the last layer; targets int64 and weights float32 [..].
// Logits exist for a few rows at a time: their gradient is taken on the way forward.
Tensor next_token_loss(const Params<Tensor>& params, const Tensor& x, const Tensor& targets, const Tensor& weights,
                       const ModelConfig& config);

}  // namespace hadal::train
