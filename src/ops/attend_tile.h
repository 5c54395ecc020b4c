// The work of one task of attend(): the (row, head) pairs of a tile against pages, one page after the other.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/kernels.h"
#include "ops/attend.h"

namespace hadal {

struct Tile {  // a few rows times a few query heads that share a kv head; pair = row * heads + head
  const AttendArgs* args;
  int64_t first_head, heads, first_row, rows;
  int64_t pairs() const { return rows * heads; }
  int64_t kv_head() const { return first_head / (args->heads / args->kv_heads); }
};

struct Partial {  // softmax and sums of a tile over some of the keys
  std::vector<SoftmaxState> state;
  std::vector<float> out;  // [pairs, out_stride], not yet divided by the softmax's sum
};

inline int64_t out_stride(const AttendArgs& a) { return (a.value_dim + 15) / 16 * 16; }

struct TileScratch {
  Partial now, total;
  std::vector<float> q, scores, q_scale, factor, weight;
  std::vector<int8_t> q_integers;
  std::vector<int32_t> q_sum;
  std::vector<uint8_t> p;
  std::vector<uint64_t> visible;  // of each pair in the page at hand
};

void load_queries(const Tile& t, TileScratch& s);
// Adds page `entry` of the list to s.now; false: no row sees a key of it.
bool attend_page(const Tile& t, int64_t entry, TileScratch& s);

}  // namespace hadal
