// Products of so few rows that memory decides: the weights pass by once and are unpacked in registers.
#pragma once
#include "kernels/vnni/lines.inc.h"

namespace hadal {
namespace {

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
    int calls = 0;
    Format::template lines<P>(at, [&](int line, const Sums(&w)[P]) ALWAYS_INLINE {
      // Fetches are spread over the products: in one burst they would stop them, and memory would rest afterwards.
      constexpr int64_t fetches = Format::block_bytes / 64;
      const int64_t fetch = calls * fetches / 32;
      if (++calls * fetches / 32 > fetch) each<P>([&](auto p) ALWAYS_INLINE { _mm_prefetch(at[p] + ahead + 64 * fetch, _MM_HINT_T0); });
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

}  // namespace
}  // namespace hadal
