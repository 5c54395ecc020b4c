// Kernels of training: forward and backward passes over raw pointers, in double, float and bf16. Leaf functions like those of kernels.h:
// the caller brings the threads, calling f(args, task, scratch) once for each task in [0, tasks), or f(args, first, last) for parts of the
// rows; scratch is memory of the thread's own, 64-byte aligned. No size needs to be a multiple of anything.
//
// A result does not depend on how tasks fall to threads. Each level has its own order of addition: tests hold them to the scalar twin
// within a tolerance; in double there is only the scalar level.
#pragma once
#include "kernels/kernels.h"
#include "kernels/training_products.h"

namespace hadal {

// Losses of the next token, fused with their gradient. With q = softmax(logits / temperature), p that of the teacher, m = beta p + (1-beta)
// q:
//   loss[0] = sum over targets of weight * -log softmax(logits)[target]      loss[1] = KL(p || q)   loss[2] = KL(q || p)
//   loss[3] = beta KL(p || m) + (1 - beta) KL(q || m)
// logits become the gradient of row_weight * sum of share[i] * loss[i]. A loss whose share is 0 is not computed and reported as 0.
template <class T>
struct TokenLossArgs {
  T* logits;                     // [rows, vocab]
  const T* teacher;              // [rows, vocab]; null when shares 1 to 3 are 0
  const int64_t* target;         // [rows, targets]; a negative one does not count; null when share 0 is 0
  const Wide<T>* target_weight;  // [rows, targets]; null: 1
  const Wide<T>* row_weight;     // [rows]; null: 1
  Wide<T>* loss;                 // [rows, 4], written
  int64_t vocab, targets, ld, ld_teacher;
  Wide<T> share[4], beta, temperature;
};

template <class T>
struct RmsNormArgs {  // out = x * rms * weight, rms = 1 / sqrt(mean of x^2 + eps)
  T* out;             // rows of n, as x
  const T* x;
  const Wide<T>* weight;
  Wide<T>* rms;  // [rows], written
  int64_t n, ldx, ldout;
  Wide<T> eps;
};
template <class T>
struct RmsNormGradArgs {
  T* dx;
  const T *x, *dout;
  const Wide<T>*weight, *rms;
  int64_t n, ldx, lddout, lddx;
};

template <class T>
struct SwigluArgs {  // out = gate / (1 + exp(-gate)) * up
  T* out;
  const T *gate, *up;
  int64_t n, ld, ldout;  // ld: of gate and up
};
template <class T>
struct SwigluGradArgs {
  T *dgate, *dup;
  const T *gate, *up, *dout;
  int64_t n, ld, lddout, ldgrad;
};

template <class T>
struct RopeArgs {  // turns `half` pairs of each head of row (batch, t) by the angles of row t; out may be x
  T* out;
  const T* x;
  const Wide<T>*cos, *sin;                                       // [times, half]
  int64_t times, heads, half, x_row, x_head, out_row, out_head;  // strides in elements
  bool pairs;                                                    // (2i, 2i + 1), else (i, i + half)
  bool back;                                                     // by the negative angles: the backward pass
};

template <class T>
struct TrainingKernels {
  void (*attention)(const AttentionArgs<T>&, int64_t task, void* scratch);
  void (*attention_backward)(const AttentionGradArgs<T>&, int64_t task, void* scratch);
  int64_t (*attention_scratch)(const AttentionArgs<T>&);  // bytes
  int64_t (*attention_backward_scratch)(const AttentionArgs<T>&);
  // best [batches, kv_heads, queries, blocks of 64 keys], written: how good the best visible key of a block is for any head of the group,
  // in scale * q k less what that head's best key of all has; at most 0, -inf where a query sees nothing. v, out and lse are not looked at.
  void (*block_scores)(const AttentionArgs<T>&, Wide<T>* best, int64_t task, void* scratch);
  int64_t (*block_scores_scratch)(const AttentionArgs<T>&);
  void (*pack)(const PackArgs<T>&);
  void (*grouped)(const GroupedArgs<T>&, int64_t task, void* scratch);
  void (*grouped_outer)(const GroupedOuterArgs<T>&, int64_t task, void* scratch);
  int64_t (*grouped_scratch)(const GroupedArgs<T>&);  // bytes
  int64_t (*grouped_outer_scratch)(const GroupedOuterArgs<T>&);
  void (*gather_choices)(const ChoicesArgs<T>&, int64_t first, int64_t last);  // rows = the sum of their choices, weighed
  void (*spread_choices)(const ChoicesArgs<T>&, int64_t first, int64_t last);  // sorted = weight * row
  // dot[i] = x[place[i]] . sorted[place[i]] for the choices of these rows, then sorted *= weight; x [rows * active, n], rows is not read.
  void (*weigh_choices)(const ChoicesArgs<T>&, const T* x, Wide<T>* dot, int64_t first, int64_t last);
  void (*token_loss)(const TokenLossArgs<T>&, int64_t first, int64_t last);
  void (*rms_norm)(const RmsNormArgs<T>&, int64_t first, int64_t last);
  void (*rms_norm_backward)(const RmsNormGradArgs<T>&, int64_t first, int64_t last, Wide<T>* dweight);  // adds these rows' part to dweight
  void (*swiglu)(const SwigluArgs<T>&, int64_t first, int64_t last);
  void (*swiglu_backward)(const SwigluGradArgs<T>&, int64_t first, int64_t last);
  void (*rope)(const RopeArgs<T>&, int64_t first, int64_t last);
  int64_t (*product_peak)(int64_t rounds);  // chains of what the products are made of, in registers; floating-point operations done
};

struct TrainingTable {
  TrainingKernels<double> f64;
  TrainingKernels<float> f32;
  TrainingKernels<uint16_t> bf16;
  template <class T>
  const TrainingKernels<T>& of() const {
    if constexpr (sizeof(T) == 8) return f64;
    if constexpr (sizeof(T) == 4) return f32;
    if constexpr (sizeof(T) == 2) return bf16;
  }
};
TrainingTable training_kernels_for(Isa isa);
const TrainingTable& training_kernels();  // training_kernels_for(chosen_isa()), made once

void fill_scalar_training(TrainingTable& t);
void fill_avx2_training(TrainingTable& t);
void fill_avx512_training(TrainingTable& t);
void fill_bf16_training(TrainingTable& t);

}  // namespace hadal
