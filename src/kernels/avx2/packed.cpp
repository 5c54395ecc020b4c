// Products with packed weights on AVX2. A panel is unpacked once, by blocks for few rows of a, whole
// for many, into bytes that stay in the caches; half a line, 32 bytes, holds 4
// columns of k for 8 rows of w. vpmaddubsw wants one operand without sign: |w| times a with the sign of w gives pairs of at most
// 2 x 128 x 127, which 16 bits hold; vpmaddwd with ones adds the pairs. A tile is 4 rows of a by one panel: 8 sums in registers.
//
//   |w|, 32 bytes   x   4 bytes of a, broadcast, signs of w   ->  16 x int16  ->  8 x int32
#include <immintrin.h>

#include "kernels/kernels.h"

namespace hadal {
namespace {

#define ALWAYS_INLINE __attribute__((always_inline))
#define INLINE ALWAYS_INLINE inline

constexpr int64_t block_cols = 128, panel_rows = 16, unpacked_bytes = 2048;  // of a block
constexpr int tile_m = 4;
using Sums = int32_t __attribute__((vector_size(32)));  // g++ keeps arrays of __m256i in memory, but not of this

template <int i>
struct Index {
  constexpr operator int() const { return i; }
};
template <int N, class F>
INLINE void each(F f) {
  if constexpr (N > 1) each<N - 1>(f);
  if constexpr (N > 0) f(Index<N - 1>{});
}

INLINE __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
INLINE void store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

// One group of 32 columns, 8 rows: the scale in every 16-bit lane, the zero in every byte, of the row that the lane belongs to.
struct Group {
  __m256i scale, zero;
  INLINE Group(const uint8_t* bytes, int shift) {
    const __m256i each = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
    const __m256i s = _mm256_and_si256(each, _mm256_set1_epi32(15)), code = _mm256_srli_epi32(each, 4);
    const __m256i z = _mm256_srli_epi32(_mm256_madd_epi16(s, _mm256_add_epi32(code, _mm256_set1_epi32(9))), shift);
    const __m256i four_times = _mm256_broadcastsi128_si256(_mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
    scale = _mm256_and_si256(_mm256_shuffle_epi8(s, four_times), _mm256_set1_epi16(255));
    zero = _mm256_shuffle_epi8(z, four_times);
  }
  INLINE __m256i operator()(__m256i codes) const { return _mm256_sub_epi8(_mm256_mullo_epi16(codes, scale), zero); }
};

// unpack(out, block): the integers in the order of w8.
struct W8 {
  static constexpr int64_t block_bytes = 2048;
  INLINE static void unpack(uint8_t* out, const uint8_t* block) {
    for (int64_t i = 0; i < block_bytes; i += 32) store(out + i, load(block + i));
  }
};
struct W4 {
  static constexpr int64_t block_bytes = 1088;
  INLINE static void unpack(uint8_t* out, const uint8_t* block) {
    const __m256i nibble = _mm256_set1_epi8(15);
    for (int half = 0; half < 2; ++half)      // of the 16 lines of codes
      for (int side = 0; side < 2; ++side) {  // of the 16 rows
        const uint8_t* groups = block + 1024 + 16 * half + 8 * side;
        const Group low(groups, 1), high(groups + 32, 1);
        for (int r = 8 * half; r < 8 * half + 8; ++r) {
          const __m256i both = load(block + 64 * r + 32 * side);
          store(out + 64 * r + 32 * side, low(_mm256_and_si256(both, nibble)));
          store(out + 64 * (16 + r) + 32 * side, high(_mm256_and_si256(_mm256_srli_epi16(both, 4), nibble)));
        }
      }
  }
};
template <bool third_bit>
struct Narrow {  // w2, and w3 with its plane of third bits
  static constexpr int64_t block_bytes = third_bit ? 832 : 576;
  INLINE static void unpack(uint8_t* out, const uint8_t* block) {
    for (int g = 0; g < 4; ++g)
      for (int side = 0; side < 2; ++side) {
        const Group group(block + block_bytes - 64 + 16 * g + 8 * side, third_bit ? 2 : 3);
        for (int r = 0; r < 8; ++r) {
          __m256i codes = _mm256_and_si256(_mm256_srli_epi16(load(block + 64 * r + 32 * side), 2 * g), _mm256_set1_epi8(3));
          if (third_bit) {
            const __m256i bits = _mm256_srli_epi16(load(block + 512 + 64 * (r / 2) + 32 * side), r % 2 * 4 + g);
            codes = _mm256_or_si256(codes, _mm256_slli_epi16(_mm256_and_si256(bits, _mm256_set1_epi8(1)), 2));
          }
          store(out + 64 * (8 * g + r) + 32 * side, group(codes));
        }
      }
  }
};

template <class Format>
INLINE void unpack_next(uint8_t* out, const uint8_t*& block) {
  for (int64_t i = 0; i < Format::block_bytes; i += 64) _mm_prefetch(block + 4 * Format::block_bytes + i, _MM_HINT_T0);
  Format::unpack(out, block);
  block += Format::block_bytes;
}

// Columns [n, n + 8) of row m of c, as far as they exist; the factors come last and in the order of the scalar level.
INLINE void finish(const PackedArgs& g, int64_t m, int64_t n, Sums sum) {
  alignas(32) float out[8];
  const int64_t count = g.n - n < 8 ? g.n - n : 8;
  if (count == 8) {
    const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(__m256i(sum)), _mm256_loadu_ps(g.w_scale + n));
    return _mm256_storeu_ps(g.c + m * g.ldc + n, _mm256_mul_ps(scaled, _mm256_set1_ps(g.a_scale[m])));
  }
  _mm256_store_ps(out, _mm256_cvtepi32_ps(__m256i(sum)));
  for (int64_t i = 0; i < count; ++i) g.c[m * g.ldc + n + i] = out[i] * g.w_scale[n + i] * g.a_scale[m];
}

// Rows [m0, m0 + M) by one panel. It lies unpacked already, or `packed` names it: then its blocks are unpacked one by one, all into the
// same bytes, and multiplied at once, so that memory and arithmetic work at the same time.
template <class Format, int M>
void tile(const PackedArgs& g, int64_t m0, int64_t n, uint8_t* unpacked, const uint8_t* packed) {
  Sums sum[M][2];
  each<M>([&](auto m) ALWAYS_INLINE { sum[m][0] = sum[m][1] = Sums{}; });
  const uint8_t* a = g.a + m0 * g.lda;
  const __m256i ones = _mm256_set1_epi16(1), bias = _mm256_set1_epi8(char(0x80));
  for (int64_t b = 0; b < g.k_blocks; ++b, a += block_cols) {
    if (packed) unpack_next<Format>(unpacked, packed);
    for (int64_t k = 0; k < block_cols; k += 4) {
      const __m256i w[2] = {load(unpacked + k * panel_rows), load(unpacked + k * panel_rows + 32)};
      const __m256i size[2] = {_mm256_abs_epi8(w[0]), _mm256_abs_epi8(w[1])};
      each<M>([&](auto m) ALWAYS_INLINE {
        int32_t word;
        __builtin_memcpy(&word, a + m * g.lda + k, 4);
        const __m256i left = _mm256_xor_si256(_mm256_set1_epi32(word), bias);
        each<2>([&](auto side) ALWAYS_INLINE {
          const __m256i pairs = _mm256_maddubs_epi16(size[side], _mm256_sign_epi8(left, w[side]));
          sum[m][side] += Sums(_mm256_madd_epi16(pairs, ones));
        });
      });
    }
    if (!packed) unpacked += unpacked_bytes;
  }
  each<M>([&](auto m) ALWAYS_INLINE {
    finish(g, m0 + m, n, sum[m][0]);
    if (n + 8 < g.n) finish(g, m0 + m, n + 8, sum[m][1]);
  });
}

template <class Format, int M = tile_m>
INLINE void tile_of_rows(int64_t rows, const PackedArgs& g, int64_t m, int64_t n, uint8_t* unpacked, const uint8_t* packed) {
  if (rows >= M) return tile<Format, M>(g, m, n, unpacked, packed);
  if constexpr (M > 1) tile_of_rows<Format, M - 1>(rows, g, m, n, unpacked, packed);
}

template <class Format>
void gemm(const PackedArgs& g) {
  if (g.m <= 0) return;
  auto* unpacked = static_cast<uint8_t*>(g.scratch);
  const auto* w = static_cast<const uint8_t*>(g.w);
  for (int64_t n = 0; n < g.n; n += panel_rows) {
    if (g.m <= tile_m) {
      tile_of_rows<Format>(g.m, g, 0, n, unpacked, w + n / panel_rows * g.k_blocks * Format::block_bytes);
      continue;
    }
    for (int64_t b = 0; b < g.k_blocks; ++b) unpack_next<Format>(unpacked + b * unpacked_bytes, w);
    for (int64_t m = 0; m < g.m; m += tile_m) tile_of_rows<Format>(g.m - m, g, m, n, unpacked, nullptr);
  }
}

float u8_from_f32(uint8_t* out, const float* x, int64_t n, int64_t padded) {
  const __m256 no_sign = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  __m256 most = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) most = _mm256_max_ps(_mm256_and_ps(_mm256_loadu_ps(x + i), no_sign), most);
  alignas(32) float lane[8];
  _mm256_store_ps(lane, most);
  float top = 0;
  for (const float v : lane) top = v > top ? v : top;
  for (; i < n; ++i) top = __builtin_fabsf(x[i]) > top ? __builtin_fabsf(x[i]) : top;
  const bool usable = top > 1e-30f && top < 1e38f;
  const __m256 inverse = _mm256_set1_ps(usable ? 127 / top : 0), limit = _mm256_set1_ps(127);
  for (i = 0; i < n; i += 8) {
    const int64_t count = n - i < 8 ? n - i : 8;
    __builtin_memset(lane, 0, sizeof lane);
    __builtin_memcpy(lane, x + i, size_t(count) * sizeof(float));
    const __m256 v = _mm256_round_ps(_mm256_load_ps(lane) * inverse, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256i q = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(v, -limit), limit));
    alignas(32) int32_t biased[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(biased), _mm256_add_epi32(q, _mm256_set1_epi32(128)));
    for (int64_t j = 0; j < count; ++j) out[i + j] = uint8_t(biased[j]);
  }
  for (i = n; i < padded; ++i) out[i] = 128;
  return usable ? top * (1.f / 127) : 0;
}

int64_t integer_peak(int64_t rounds) {
  Sums chain[8];
  each<8>([&](auto i) ALWAYS_INLINE {
    chain[i] = Sums{};
    asm volatile("" : "+x"(chain[i]));  // or chains that begin alike would be one
  });
  __m256i a = _mm256_set1_epi8(1);
  for (int64_t r = 0; r < rounds; ++r)
    each<8>([&](auto i) ALWAYS_INLINE {
      asm volatile("" : "+x"(a));  // or the compiler would multiply once for all
      chain[i] += Sums(_mm256_madd_epi16(_mm256_maddubs_epi16(a, a), a));
    });
  for (const Sums& sums : chain) asm volatile("" : : "x"(sums));  // the result counts as used
  return rounds * 8 * 64;
}

}  // namespace

void fill_avx2_packed(Kernels& k) {
  k.gemm_u8_w8 = gemm<W8>;
  k.gemm_u8_w4 = gemm<W4>;
  k.gemm_u8_w3 = gemm<Narrow<true>>;
  k.gemm_u8_w2 = gemm<Narrow<false>>;
  k.u8_from_f32 = u8_from_f32;
  k.integer_peak = integer_peak;
}

}  // namespace hadal
