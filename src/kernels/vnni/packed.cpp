// Products with packed weights on AVX-512 VNNI. A 64-byte line holds 4 columns of k for 16 rows of w, so one vpdpbusd with 4 broadcast
// bytes of a adds 64 products to 16 sums; no shuffle anywhere. Few rows of a: lines are unpacked in registers, two panels far apart at
// a time, each fetched 2 KB ahead, because memory decides. Many rows: two panels are unpacked once into 2 x 16 k bytes that stay in the L2
// cache, then tiles of 12 rows by 2 panels (24 sums in registers) pass over all of k: 24 products of 64 bytes for 14 loads.
//
//            k -> 4 bytes of 12 rows of a, broadcast
//   a rows   [....]  x  [ 16 rows of w | 16 rows of w ]  ->  12 x 32 sums, kept for the whole of k
#include "kernels/vnni/stream.inc.h"

namespace hadal {
namespace {

constexpr int tile_m = 12;

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
  for (const Sums& sums : chain) asm volatile("" : : "v"(sums));  // the result counts as used
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
