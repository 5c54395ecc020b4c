// AVX2 with FMA and F16C. The idea of each kernel stands in vector/; this file says what a vector is here: 8 floats, so the 16 partial
// sums of a dot product are two registers. 16 registers hold a tile of 3 rows of a by 2 rows of b: 12 for sums, 2 of b, one of a.
// A step of 16 along k is 12 fused multiply-adds for 10 loads: 2 x 12 x 8 flops for 2 x 32 bytes of bf16 weights.
#include <immintrin.h>

#include "kernels/kernels.h"

namespace hadal {
namespace {

#include "kernels/avx2/vec.inc.h"

#include "kernels/vector/lanes.inc.h"

#include "kernels/vector/gemm.inc.h"

#include "kernels/vector/mix.inc.h"
#include "kernels/vector/rows.inc.h"

template <int step>
INLINE Vec exchanged(Vec v) {  // lanes i and i ^ step
  if constexpr (step == 1) return _mm256_permute_ps(v, 0xb1);
  if constexpr (step == 2) return _mm256_permute_ps(v, 0x4e);
  return _mm256_permute2f128_ps(v, v, 1);
}
template <int step>
INLINE Vec signs() {  // -1 in the upper lane of each pair
  return _mm256_blend_ps(set(1), set(-1), step == 1 ? 0xaa : step == 2 ? 0xcc : 0xf0);
}
#include "kernels/vector/rotate.inc.h"

#include "kernels/vector/convert.inc.h"

#include "kernels/vector/table.inc.h"

}  // namespace

void fill_avx2(Kernels& k) { fill(k); }

}  // namespace hadal
