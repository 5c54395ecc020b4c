// Operations over the training kernels, in double, float32 or bfloat16: each equals a formula of plain algebra beside it in this folder,
// without the tensors in between. Differentiable once.
#pragma once
#include <vector>

#include "train/forward.h"

namespace hadal::train::ops {

struct FlashMask {
  int64_t window = 0, sinks = 0;  // as LayerMask; they count keys, not positions
  int64_t query_offset = 0;       // keys before the first query's own
  Tensor selected = {};           // bool [batch, kv_heads or 1, queries, keys]; undefined: all
};
// softmax(scale q k^T) v. q [batch, queries, heads, dim], k [batch, keys, kv_heads, dim], v [batch, keys, kv_heads, value_dim]
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const FlashMask& mask);

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps);  // weight float32, or double beside double
Tensor swiglu(const Tensor& gate, const Tensor& up);
Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, bool pairs);  // x [batch, time, heads, width]

// Of every row the experts it chose, weighed and added. rows [n, dim]; the experts' matrices are float32 (double beside double).
Tensor experts(const Tensor& rows, const Routing& routing, const std::vector<Mlp<Tensor>>& experts);

// loss [rows] of the targets; the logits become their gradient, times row_weight.
Tensor token_loss(Tensor& logits, const Tensor& targets, const Tensor& row_weight);

}  // namespace hadal::train::ops
