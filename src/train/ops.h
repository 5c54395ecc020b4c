// Operations over the training kernels, in double, float32 or bfloat16: each equals a formula of plain algebra beside it in this folder,
// without the tensors in between. Differentiable once.
#pragma once
#include <vector>

#include "train/distill_config.h"
#include "train/forward.h"

namespace hadal::train::ops {

struct FlashMask {
  int64_t window = 0, sinks = 0;  // as LayerMask; they count keys, not positions
  int64_t query_offset = 0;       // keys before the first query's own
  Tensor selected = {};           // int64 [batch, kv_heads or 1, queries, blocks of 64 keys], a bit for each key; undefined: all
};
// softmax(scale q k^T) v. q [batch, queries, heads, dim], k [batch, keys, kv_heads, dim], v [batch, keys, kv_heads, value_dim]
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const FlashMask& mask);
Tensor selected_words(const Tensor& seen);  // of bool [batch, kv_heads or 1, queries, keys] what FlashMask takes
// Of the blocks that a query sees the first, its own and the one before, and the best of the others, `count` in all: FlashMask::selected,
// of kv_heads. A block is as good as its best key for one head of the group, less that head's best key of all; of equals the later.
Tensor choose_blocks(const Tensor& q, const Tensor& k, double scale, const FlashMask& mask, int64_t count);

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps);  // weight float32, or double beside double
Tensor swiglu(const Tensor& gate, const Tensor& up);
Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, bool pairs);  // x [batch, time, heads, width]

// Of every row the experts it chose, weighed and added. rows [n, dim]; the experts' matrices are float32 (double beside double).
Tensor experts(const Tensor& rows, const Routing& routing, const std::vector<Mlp<Tensor>>& experts);

struct LossTerms {            // of rows of logits; all but the targets float32, or double beside double
  Tensor targets;             // int64 [rows, n]
  Tensor target_weight = {};  // [rows, n]: each one's part in the cross entropy; undefined: 1
  Tensor row_weight;          // [rows], of everything
  Tensor teacher = {};        // logits [rows, vocab], in the type of the student's; undefined: no divergence
  TokenLoss divergence = {};  // from the teacher; its `hard` is not read, target_weight says it
  LossTerms of_rows(int64_t first, int64_t end) const;
};
// The summed loss of the rows; logits [rows, vocab] become its gradient.
double token_loss(const Tensor& logits, const LossTerms& terms);

}  // namespace hadal::train::ops
