// Attention over pages of int8. A part of a page, the keys or the values of one kv head, is 64 rows of `dims` columns (a multiple of 4, the
// last ones zero): 4 panels of 16 rows as int8 [dims / 4][16 rows][4 columns], then one float scale per row. Values are in [-127, 127].
//
// Sums of products are exact integers; float steps are single operations or one fused multiply-add in the order written here, sums over a
// page's rows keep 16 partial sums as everywhere. So every level gives the same bits.
#pragma once
#include <cstdint>

namespace hadal {

constexpr int64_t attend_rows = 64;  // of a page

struct SoftmaxState {  // of one row, over the blocks seen so far
  float max = -__builtin_inff(), sum = 0;
};

struct ScoreArgs {  // scores[m, i] = (add ? scores[m, i] : 0) + sum over d of q[m, d] k[i, d] * (k_scale[i] * q_scale[m])
  float* scores;    // [m, 64]
  const int8_t* q;  // [m, dims]
  const float* q_scale;
  const int32_t* q_sum;  // of each row's integers
  const void* k;         // a part of a page
  int64_t m, dims, ldq;
  bool add;
  const void* next = nullptr;  // a part of the same size that will be read next; null: it is not worth fetching
};

// Online softmax over one page for m rows. Row r sees the keys of visible[r]; a row that sees none is left as it is.
//   p = exp(score - max); u = floor(p * v_scale * (255 / most) + dither), most being the page's largest p * v_scale
// The dither (row i: the bits of i reversed, in (0, 1)) keeps the sum of many small probabilities right where rounding would drop them.
struct PageSoftmaxArgs {
  uint8_t* p;           // [m, 64], written
  const float* scores;  // [m, 64]
  const float* v_scale;
  const uint64_t* visible;
  SoftmaxState* state;
  float *factor, *weight;  // written: of what was accumulated before, and of the page's integer sums
  int64_t m;
};

struct MixPageArgs {  // out[m, d] = out[m, d] * factor[m] + weight[m] * sum over i of p[m, i] v[i, d]; rows that see nothing stay
  float* out;         // rows of `ldout` floats, at least dims rounded up to 16
  const uint8_t* p;   // [m, 64]
  const void* v;      // a part of a page
  const uint64_t* visible;
  const float *factor, *weight;
  int64_t m, dims, ldout;
  const void* next = nullptr;  // as in ScoreArgs
};

// A sketch of a page's keys: a word for each column, bit i set where row i is negative, then for each row its mean size as float.

}  // namespace hadal
