// Products with packed weights on AVX-512 VNNI. A 64-byte line holds 4 columns of k for 16 rows of w, so one vpdpbusd with 4 broadcast
// bytes of a adds 64 products to 16 sums; no shuffle anywhere. Few rows of a: lines are unpacked in registers, two panels far apart at
// a time, each fetched 2 KB ahead, because memory decides. Many rows: two panels are unpacked once into 2 x 16 k bytes that stay in the L2
// cache, then tiles of 12 rows by 2 panels (24 sums in registers) pass over all of k: 24 products of 64 bytes for 14 loads.
//
//            k -> 4 bytes of 12 rows of a, broadcast
//   a rows   [....]  x  [ 16 rows of w | 16 rows of w ]  ->  12 x 32 sums, kept for the whole of k
#include <immintrin.h>

#include "kernels/kernels.h"

namespace hadal {
namespace {

#define INLINE __attribute__((always_inline)) inline

constexpr int64_t block_cols = 128, panel_rows = 16;
constexpr int tile_m = 12;

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

// Rows [0, M) of a by P panels, unpacked in registers.
template <class Format, int M, int P>
void stream(const PackedArgs& g, const int64_t (&panel)[P]) {
  constexpr int64_t ahead = 2 * Format::block_bytes;
  const uint8_t* at[P];
  Sums sum[P][M];
  each<P>([&](auto p) ALWAYS_INLINE {
    at[p] = static_cast<const uint8_t*>(g.w) + panel[p] * g.k_blocks * Format::block_bytes;
    each<M>([&](auto m) ALWAYS_INLINE { sum[p][m] = Sums{}; });
  });
  for (int64_t b = 0; b < g.k_blocks; ++b) {
    const uint8_t* a = g.a + b * block_cols;
    each<P>([&](auto p) ALWAYS_INLINE {
      each<Format::block_bytes / 64>([&](int i) ALWAYS_INLINE { _mm_prefetch(at[p] + ahead + 64 * i, _MM_HINT_T0); });
    });
    Format::template lines<P>(at, [&](int line, const Sums(&w)[P]) ALWAYS_INLINE {
      each<M>([&](auto m) ALWAYS_INLINE {
        const __m512i left = four_columns(a + m * g.lda + 4 * line);
        each<P>([&](auto p) ALWAYS_INLINE { sum[p][m] = products(sum[p][m], left, w[p]); });
      });
    });
    each<P>([&](auto p) ALWAYS_INLINE { at[p] += Format::block_bytes; });
  }
  each<P>([&](auto p) ALWAYS_INLINE { each<M>([&](auto m) ALWAYS_INLINE { finish(g, m, panel[p], sum[p][m]); }); });
}

template <class Format, int M>
void stream_panels(const PackedArgs& g) {
  const int64_t panels = (g.n + panel_rows - 1) / panel_rows, half = panels / 2;
  for (int64_t p = 0; p < half; ++p) stream<Format, M, 2>(g, {p, p + half});
  if (panels % 2) stream<Format, M, 1>(g, {panels - 1});
}

template <class Format, int M = Format::few_rows>
INLINE void stream_rows(const PackedArgs& g) {
  if (g.m == M) return stream_panels<Format, M>(g);
  if constexpr (M > 1) stream_rows<Format, M - 1>(g);
}

// Rows [m, m + M) by P panels that lie unpacked behind each other, k_blocks * 2048 bytes each.
template <int M, int P>
void tile(const PackedArgs& g, int64_t m0, int64_t panel, const uint8_t* unpacked) {
  Sums sum[M][P];
  each<M>([&](auto m) ALWAYS_INLINE { each<P>([&](auto p) ALWAYS_INLINE { sum[m][p] = Sums{}; }); });
  const int64_t columns = g.k_blocks * block_cols, panel_bytes = columns * panel_rows;
  const uint8_t* a = g.a + m0 * g.lda;
  for (int64_t k = 0; k < columns; k += 4) {
    Sums w[P];
    each<P>([&](auto p) ALWAYS_INLINE { w[p] = Sums(load(unpacked + p * panel_bytes + k * panel_rows)); });
    each<M>([&](auto m) ALWAYS_INLINE {
      const __m512i left = four_columns(a + m * g.lda + k);
      each<P>([&](auto p) ALWAYS_INLINE { sum[m][p] = products(sum[m][p], left, w[p]); });
    });
  }
  each<M>([&](auto m) ALWAYS_INLINE { each<P>([&](auto p) ALWAYS_INLINE { finish(g, m0 + m, panel + p, sum[m][p]); }); });
}

template <int P, int M = tile_m>
INLINE void tile_of_rows(int64_t rows, const PackedArgs& g, int64_t m, int64_t panel, const uint8_t* unpacked) {
  if (rows == M) return tile<M, P>(g, m, panel, unpacked);
  if constexpr (M > 1) tile_of_rows<P, M - 1>(rows, g, m, panel, unpacked);
}

template <class Format, int P>
void unpack_and_multiply(const PackedArgs& g, int64_t panel) {
  auto* unpacked = static_cast<uint8_t*>(g.scratch);
  const auto* w = static_cast<const uint8_t*>(g.w) + panel * g.k_blocks * Format::block_bytes;
  for (int64_t b = 0; b < P * g.k_blocks; ++b)
    Format::template lines<1>({w + b * Format::block_bytes}, [&](int line, const Sums(&integers)[1]) ALWAYS_INLINE {
      _mm512_storeu_si512(unpacked + b * 2048 + 64 * line, __m512i(integers[0]));
    });
  const int64_t tiles = (g.m + tile_m - 1) / tile_m, rows = (g.m + tiles - 1) / tiles;
  for (int64_t m = 0; m < g.m; m += rows) tile_of_rows<P>(rows < g.m - m ? rows : g.m - m, g, m, panel, unpacked);
}

template <class Format>
void gemm(const PackedArgs& g) {
  if (g.m <= 0) return;
  if (g.m <= Format::few_rows) return stream_rows<Format>(g);
  const int64_t panels = (g.n + panel_rows - 1) / panel_rows;
  int64_t p = 0;
  for (; p + 2 <= panels; p += 2) unpack_and_multiply<Format, 2>(g, p);
  if (p < panels) unpack_and_multiply<Format, 1>(g, p);
}

float u8_from_f32(uint8_t* out, const float* x, int64_t n, int64_t padded) {
  const auto live = [](int64_t left)
                        ALWAYS_INLINE { return left >= 16 ? __mmask16(0xffff) : __mmask16((1u << (left > 0 ? left : 0)) - 1); };
  __m512 most = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += 16) most = _mm512_max_ps(_mm512_abs_ps(_mm512_maskz_loadu_ps(live(n - i), x + i)), most);
  const float top = _mm512_reduce_max_ps(most);
  const bool usable = top > 1e-30f && top < 1e38f;
  const __m512 inverse = _mm512_set1_ps(usable ? 127 / top : 0), limit = _mm512_set1_ps(127);
  for (int64_t i = 0; i < padded; i += 16) {
    const __m512 v =
        _mm512_roundscale_ps(_mm512_maskz_loadu_ps(live(n - i), x + i) * inverse, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512i q = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(v, -limit), limit));  // max passes its second operand over a NaN
    _mm512_mask_cvtepi32_storeu_epi8(out + i, live(padded - i), _mm512_add_epi32(q, _mm512_set1_epi32(128)));
  }
  return usable ? top * (1.f / 127) : 0;
}

int64_t integer_peak(int64_t rounds) {
  Sums chain[24];
  each<24>([&](auto i) ALWAYS_INLINE {
    chain[i] = Sums{};
    asm volatile("" : "+v"(chain[i]));  // or chains that begin alike would be one
  });
  __m512i ones = _mm512_set1_epi8(1);
  for (int64_t r = 0; r < rounds; ++r) {
    asm volatile("" : "+v"(ones));  // or the compiler would add once and multiply
    each<24>([&](auto i) ALWAYS_INLINE { chain[i] = products(chain[i], ones, Sums(ones)); });
  }
  each<24>([&](auto i) ALWAYS_INLINE { asm volatile("" : : "v"(chain[i])); });  // the result counts as used
  return rounds * 24 * 128;
}

}  // namespace

void fill_vnni_packed(Kernels& k) {
  k.u8_from_f32 = u8_from_f32;
  k.integer_peak = integer_peak;
  k.gemm_u8_w8 = gemm<W8>;
  k.gemm_u8_w4 = gemm<W4>;
  k.gemm_u8_w3 = gemm<W3>;
  k.gemm_u8_w2 = gemm<W2>;
}

}  // namespace hadal
