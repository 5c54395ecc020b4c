// What the training kernels of products take: attention and grouped matrices, in double, float and bf16 (uint16_t, the upper half of a
// float). Sums, statistics and parameters of bf16 are floats.
#pragma once
#include <cstdint>

namespace hadal {

template <class T>
struct WideOf {
  using type = float;
};
template <>
struct WideOf<double> {
  using type = double;
};
template <class T>
using Wide = typename WideOf<T>::type;

template <class T>
struct Heads {  // [batch, time, heads, dim]; strides in elements, that of dim is 1
  T* data;
  int64_t batch, time, head;
};

// Which keys query t sees of those up to its own, which has index query_offset + t: as Mask and AttendArgs::selected in ops/attend.h.
struct AttentionMask {
  int64_t window = 0;  // the last so many, its own included; 0: all
  int64_t sinks = 0;   // and the first so many; only beside a window
  // Of these only key 64 * block + i with bit i of word (batch, selected head, t / selected_rows, block); null: all. selected_heads is 1,
  // all heads see the same, or kv_heads. For blocks chosen as a whole the words are 0 or all ones.
  const uint64_t* selected = nullptr;
  int64_t selected_heads = 1, selected_rows = 1;
};

// out = softmax(scale * q k^T) v of the visible keys. Blocks of 64 x 64 that nobody sees are not computed. tasks: batches * kv_heads
template <class T>
struct AttentionArgs {
  Heads<const T> q, k, v;  // [batches, queries, heads, dim], [batches, keys, kv_heads, dim], [batches, keys, kv_heads, value_dim]
  Heads<T> out;            // [batches, queries, heads, value_dim]; 0 where a query sees nothing
  Wide<T>* lse;            // [batches, heads, queries], log of the sum of exp(scale * q k); -inf where a query sees nothing
  int64_t batches, queries, keys, heads, kv_heads, dim, value_dim;
  int64_t query_offset;  // keys before the first query's own, such as a memory of earlier segments; `keys`: every query sees all keys
  Wide<T> scale;
  AttentionMask mask = {};
  int64_t tasks() const { return batches * kv_heads; }
};

template <class T>
struct AttentionGradArgs {  // forward.out and forward.lse are read
  AttentionArgs<T> forward;
  Heads<const T> dout;  // [batches, queries, heads, value_dim]
  Heads<T> dq, dk, dv;  // written, also where the gradient is 0
};

// The right side [k, n] of a product as the kernels read it: panels of 64 columns, the last as wide as needed rounded up to 16, each
// [k / 2][columns][2] in bf16 and [k][columns] otherwise, zeros behind the ends.
constexpr int64_t packed_columns(int64_t n) { return (n + 15) / 16 * 16; }
template <class T>
constexpr int64_t packed_elements(int64_t n, int64_t k) {
  return packed_columns(n) * (sizeof(T) == 2 ? (k + 1) / 2 * 2 : k);
}
template <class T>
struct PackArgs {  // one matrix; element (k, n) is read from w[k * k_step + n * n_step], one of the steps being 1
  T* out;          // packed_elements(n, k)
  const Wide<T>* w;
  int64_t n, k, k_step, n_step;
};

constexpr int64_t group_rows = 128;  // of a task

// Rows sorted by group (expert): c[i, n] = sum over k of a[row i, k] * w[group, k, n] for offset[g] <= i < offset[g + 1]
template <class T>
struct GroupedArgs {
  T* c;        // [offset[groups], n]
  const T* a;  // [rows, k]
  const T* w;  // packed, one after the other
  const int64_t* offset;
  int64_t groups, n, k, lda, ldc;
  const int64_t* row = nullptr;  // row i of the product reads row[i] of a; null: row i
  int64_t tasks() const {
    int64_t all = 0;
    for (int64_t g = 0; g < groups; ++g) all += (offset[g + 1] - offset[g] + group_rows - 1) / group_rows;
    return all;
  }
};

// Rows and the experts that they chose: choice i of row i / active is row place[i] of a matrix whose rows are sorted by expert.
template <class T>
struct ChoicesArgs {
  T *rows, *sorted;       // [rows, n], [rows * active, n]
  const int64_t* place;   // [rows * active]
  const Wide<T>* weight;  // of each choice; null: 1
  int64_t active, n;
};

// c[g, m, n] = sum over the rows i of group g of a[i, m] * b[row i, n]; a group without rows gets zeros. tasks: groups
template <class T>
struct GroupedOuterArgs {
  Wide<T>* c;      // [groups, m, n]
  const T *a, *b;  // [offset[groups], m], [rows, n]
  const int64_t* offset;
  int64_t groups, m, n, lda, ldb;
  const int64_t* row = nullptr;  // as in GroupedArgs, of b
  int64_t tasks() const { return groups; }
};

}  // namespace hadal
