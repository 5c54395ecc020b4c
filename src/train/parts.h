// The parts of one block, called by forward().
#pragma once
#include "train/forward.h"

namespace hadal::train {

struct Rope {       // of each row's position
  Tensor cos, sin;  // [time, rotated pairs]
  bool pairs;
};

struct Rows {  // where the rows of this pass stand, and what they belong to
  Pass pass;
  torch::ScalarType products;  // type of the matrices
  Rope rope;
  Tensor position;                  // int64 [time]
  Tensor key_position;              // int64 [kept + time]: of the memory's rows, then of this pass's
  std::vector<Memory::Layer> past;  // the memory's rows; none: there is no memory yet
  Tensor tokens = {};               // int64 [batch, time]
};

inline Tensor project(const Tensor& x, const Tensor& w) { return at::linear(x.to(w.scalar_type()), w); }
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, Path path);  // computed in the type of the weight, in the type of x
Tensor rotate(const Tensor& x, const Rope& rope, Path path);  // x [batch, time, heads, width]: its first 2 * pairs columns

// h [batch, time, dim]
Tensor attention(const Tensor& h, const Gqa<Tensor>& w, int64_t layer, const Rows& rows);
Tensor attention(const Tensor& h, const Mla<Tensor>& w, int64_t layer, const Rows& rows);
Tensor feed_forward(const Tensor& h, const Mlp<Tensor>& w, int64_t layer, const Rows& rows);
Tensor feed_forward(const Tensor& h, const Moe<Tensor>& w, int64_t layer, const Rows& rows);

// x, whose way back also follows `loss`: as if the loss were added to the one taken of the result.
Tensor attach(const Tensor& x, const Tensor& loss);

// Routers: scores -> selection -> weights, differentiable in `logits` [rows, experts] through the weights. A file each; the engine's twins
// are in infer/route.cpp.
Routing route(const Tensor& logits, const Tensor& bias, int64_t layer, const Rows& rows);   // by the one that the config names
Routing choose_experts(const Tensor& logits, const MoeConfig& config, const Tensor& bias);  // the best of each row, within groups
Routing hash_experts(const Tensor& logits, const MoeConfig& config, const Tensor& tokens, int64_t layer);  // tokens: int64 [rows]
Routing choose_rows(const Tensor& logits, const MoeConfig& config);                                        // the best rows of each expert
// What they share. expert -1: none, with weight 0.
Tensor scores_of(const Tensor& logits, RouterScore kind);
Routing weighed(const Tensor& logits, const Tensor& scores, const Tensor& expert, const MoeConfig& config);

struct AttendArgs {
  Tensor q, k, v;  // [batch, time, heads, key_dim], [batch, kept + time, kv_heads, key_dim], [.., value_dim]
  double scale;
  LayerMask mask;
  Tensor selected = {};  // bool [batch, time, kept + time], what the indexer chose; undefined: all
};
Tensor attend(const AttendArgs& args, const Rows& rows);  // [batch, time, heads, value_dim]
Tensor visible(const LayerMask& mask, const Rows& rows);  // bool [time, kept + time]: causal, window, sinks

}  // namespace hadal::train
