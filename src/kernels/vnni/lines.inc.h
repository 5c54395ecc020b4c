// Packed weights as lines of 64 integers, 4 columns of k for 16 rows, out of every format, and exact sums as floats: what the products on
// AVX-512 VNNI and on AMX share. No external name: each level that includes this keeps its own copy.
#pragma once
#include <immintrin.h>

#include "kernels/kernels.h"

namespace hadal {
namespace {

#define INLINE __attribute__((always_inline)) inline

constexpr int64_t block_cols = 128, panel_rows = 16;

#define ALWAYS_INLINE __attribute__((always_inline))

// f(0), ..., f(N - 1) with constants: arrays indexed by them become registers, which loops unrolled by the compiler come too late for.
template <int i>
struct Index {
  constexpr operator int() const { return i; }
};
template <int N, class F>
INLINE void each(F f) {
  if constexpr (N > 1) each<N - 1>(f);
  if constexpr (N > 0) f(Index<N - 1>{});
}

INLINE __m512i load(const void* p) { return _mm512_loadu_si512(p); }
INLINE __m512i nibbles(__m512i v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }

using Sums = int32_t __attribute__((vector_size(64)));  // g++ keeps arrays of __m512i in memory, but not of this

// One group of 32 columns: the scale in every 16-bit lane, the zero in every byte, of the row that the lane belongs to.
struct Group {
  Sums scale, zero;
  INLINE Sums operator()(__m512i codes) const { return Sums(_mm512_sub_epi8(_mm512_mullo_epi16(codes, __m512i(scale)), __m512i(zero))); }
};
INLINE Group group_of(const uint8_t* bytes, int shift) {
  const __m512i each = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  const __m512i scale = _mm512_and_si512(each, _mm512_set1_epi32(15)), code = _mm512_srli_epi32(each, 4);
  const __m512i zero = _mm512_srli_epi32(_mm512_madd_epi16(scale, _mm512_add_epi32(code, _mm512_set1_epi32(9))), unsigned(shift));
  const __m512i four_times = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
  return {Sums(_mm512_and_si512(_mm512_shuffle_epi8(scale, four_times), _mm512_set1_epi16(255))),
          Sums(_mm512_shuffle_epi8(zero, four_times))};
}

// lines(at, use): use(line, integers) for the 32 lines of P blocks, one of each panel; line l holds columns 4 l .. 4 l + 3.
struct W8 {
  static constexpr int64_t block_bytes = 2048;
  static constexpr int few_rows = 8;  // up to so many, the lines are unpacked in registers
  template <int P, class Use>
  INLINE static void lines(const uint8_t* const (&at)[P], Use use) {
    each<32>([&](int l) ALWAYS_INLINE {
      Sums integers[P];
      each<P>([&](auto p) ALWAYS_INLINE { integers[p] = Sums(load(at[p] + 64 * l)); });
      use(l, integers);
    });
  }
};
struct W4 {
  static constexpr int64_t block_bytes = 1088;
  static constexpr int few_rows = 8;
  template <int P, class Use>
  INLINE static void lines(const uint8_t* const (&at)[P], Use use) {
    each<2>([&](int half) ALWAYS_INLINE {
      Group low[P], high[P];
      each<P>([&](auto p) ALWAYS_INLINE {
        low[p] = group_of(at[p] + 1024 + 16 * half, 1);
        high[p] = group_of(at[p] + 1056 + 16 * half, 1);
      });
      each<8>([&](int i) ALWAYS_INLINE {
        const int r = 8 * half + i;
        Sums first[P], second[P];
        each<P>([&](auto p) ALWAYS_INLINE {
          const __m512i both = load(at[p] + 64 * r);
          first[p] = low[p](nibbles(both));
          second[p] = high[p](nibbles(_mm512_srli_epi16(both, 4)));
        });
        use(r, first);
        use(16 + r, second);
      });
    });
  }
};
template <bool third_bit>
struct Narrow {  // w2, and w3 with its plane of third bits
  static constexpr int64_t block_bytes = third_bit ? 832 : 576;
  static constexpr int few_rows = 4;
  template <int P, class Use>
  INLINE static void lines(const uint8_t* const (&at)[P], Use use) {
    each<4>([&](int g) ALWAYS_INLINE {
      Group group[P];
      each<P>([&](auto p) ALWAYS_INLINE { group[p] = group_of(at[p] + block_bytes - 64 + 16 * g, third_bit ? 2 : 3); });
      each<8>([&](int r) ALWAYS_INLINE {
        Sums integers[P];
        each<P>([&](auto p) ALWAYS_INLINE {
          __m512i codes = _mm512_and_si512(_mm512_srli_epi16(load(at[p] + 64 * r), unsigned(2 * g)), _mm512_set1_epi8(3));
          if (third_bit) {
            const __m512i bits = _mm512_srli_epi16(load(at[p] + 512 + 64 * (r / 2)), unsigned(r % 2 * 4 + g));
            codes = _mm512_or_si512(codes, _mm512_slli_epi16(_mm512_and_si512(bits, _mm512_set1_epi8(1)), 2));
          }
          integers[p] = group[p](codes);
        });
        use(8 * g + r, integers);
      });
    });
  }
};
using W3 = Narrow<true>;
using W2 = Narrow<false>;

INLINE Sums products(Sums sum, __m512i a, Sums w) { return Sums(_mm512_dpbusd_epi32(__m512i(sum), a, __m512i(w))); }

INLINE __m512i four_columns(const uint8_t* a) {
  int32_t word;
  __builtin_memcpy(&word, a, 4);
  return _mm512_set1_epi32(word);
}

// Columns [panel * 16, ...) of c, row m: from sums of (a + 128) w to floats.
INLINE void finish(const PackedArgs& g, int64_t m, int64_t panel, Sums sum) {
  const int64_t n = panel * panel_rows, count = g.n - n < panel_rows ? g.n - n : panel_rows;
  const __mmask16 live = __mmask16((1u << count) - 1);
  const __m512i exact = _mm512_sub_epi32(__m512i(sum), _mm512_slli_epi32(_mm512_maskz_loadu_epi32(live, g.w_sum + n), 7));
  const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(exact), _mm512_maskz_loadu_ps(live, g.w_scale + n));
  _mm512_mask_storeu_ps(g.c + m * g.ldc + n, live, _mm512_mul_ps(scaled, _mm512_set1_ps(g.a_scale[m])));
}

}  // namespace
}  // namespace hadal
