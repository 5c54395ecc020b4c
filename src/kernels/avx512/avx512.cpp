// AVX-512 (F, BW, VL, DQ). The idea of each kernel stands in vector/; this file says what a vector is here: 16 floats, so the 16 partial
// sums of a dot product are one register. 32 registers hold a tile of 6 rows of a by 4 rows of b: 24 sums, 4 of b, one of a.
// A step of 16 along k is 24 fused multiply-adds for 10 loads: 2 x 24 x 16 flops for 4 x 32 bytes of bf16 weights.
#include <immintrin.h>

#include "kernels/kernels.h"

namespace hadal {
namespace {

#include "kernels/avx512/vec.inc.h"

#include "kernels/vector/lanes.inc.h"

#include "kernels/vector/gemm.inc.h"

#include "kernels/vector/mix.inc.h"
#include "kernels/vector/rows.inc.h"

template <int step>
INLINE Vec exchanged(Vec v) {  // lanes i and i ^ step
  if constexpr (step == 1) return _mm512_permute_ps(v, 0xb1);
  if constexpr (step == 2) return _mm512_permute_ps(v, 0x4e);
  if constexpr (step == 4) return _mm512_shuffle_f32x4(v, v, 0xb1);
  return _mm512_shuffle_f32x4(v, v, 0x4e);
}
template <int step>
INLINE Vec signs() {  // -1 in the upper lane of each pair
  constexpr __mmask16 upper = step == 1 ? 0xaaaa : step == 2 ? 0xcccc : step == 4 ? 0xf0f0 : 0xff00;
  return _mm512_mask_blend_ps(upper, set(1), set(-1));
}
#include "kernels/vector/rotate.inc.h"

#include "kernels/vector/convert.inc.h"

#include "kernels/vector/table.inc.h"

}  // namespace

void fill_avx512(Kernels& k) { fill(k); }

}  // namespace hadal
