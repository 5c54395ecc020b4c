// Products with packed weights on AMX. One tdpbusd multiplies 16 rows of a by 16 rows of w over 64 columns: 32768 operations in 16 cycles.
// An unpacked block is two tiles of w as it lies. Two tiles of a by two panels far apart are four sums that stay in tiles for the whole
// of k: 2 KB of a and 2 KB of w for 4 products. While the tiles multiply block b, the vector units unpack block b + 1 between the
// products; the first rows of a pay for that, later ones find the integers in the L2 cache. One or two rows go to VNNI: memory decides.
//
//                  tmm6    tmm7     64 columns of two panels
//   a rows, tmm4 [ tmm0 |  tmm1 ]
//           tmm5 [ tmm2 |  tmm3 ]   sums
#include "kernels/amx/tile.inc.h"
#include "kernels/vnni/stream.inc.h"

namespace hadal {
namespace {

constexpr int64_t tile_rows = 16, unpacked_bytes = 2048;  // of a block

template <class Format>
constexpr bool lies_unpacked = Format::block_bytes == unpacked_bytes;

// Product i of the 2 R P of one block: of half i / (R P), tile of rows r, panel p. Tiles are loaded where they are first needed.
template <int R, int P, int i>
INLINE void multiply(const uint8_t* const (&a)[R], int64_t lda, const uint8_t* const (&w)[P]) {
  constexpr int half = i / (R * P), r = i % (R * P) / P, p = i % P;
  if constexpr (r == 0) tile_load<6 + p>(w[p] + unpacked_bytes / 2 * half, 64);
  if constexpr (p == 0) tile_load<4 + r>(a[r] + block_cols / 2 * half, lda);
  tile_products<2 * r + p, 4 + r, 6 + p>();
}

// Unpacks a block of each of P panels to `to`, and spreads the products of another over the 32 lines.
template <class Format, int R, int P>
INLINE void unpack_beside(const uint8_t* const (&packed)[P], uint8_t* const (&to)[P], const uint8_t* const (&a)[R], int64_t lda,
                          const uint8_t* const (&w)[P]) {
  constexpr int products = 2 * R * P;
  int lines = 0;
  Format::template lines<P>(packed, [&](int line, const Sums(&integers)[P]) ALWAYS_INLINE {
    each<P>([&](auto p) ALWAYS_INLINE { _mm512_storeu_si512(to[p] + 64 * line, __m512i(integers[p])); });
    ++lines;
    each<products>([&](auto i) ALWAYS_INLINE {
      if (lines == (i + 1) * 32 / products) multiply<R, P, i>(a, lda, w);
    });
  });
}
template <class Format, int P>
INLINE void unpack(const uint8_t* const (&packed)[P], uint8_t* const (&to)[P]) {
  Format::template lines<P>(packed, [&](int line, const Sums(&integers)[P]) ALWAYS_INLINE {
    each<P>([&](auto p) ALWAYS_INLINE { _mm512_storeu_si512(to[p] + 64 * line, __m512i(integers[p])); });
  });
}

struct Rows {
  int64_t tiles, each;  // of a; all tiles have one height, so the last may repeat rows of the one before, to the same bits
  int64_t first(const PackedArgs& g, int64_t tile) const { return tile * each < g.m - each ? tile * each : g.m - each; }
};

// Tiles [tile, tile + R) of rows by P panels. The first rows unpack; when there are no others, into two blocks that the L1 cache holds.
template <class Format, int R, int P>
void pass(const PackedArgs& g, const int64_t (&panel)[P], const Rows& rows, int64_t tile) {
  constexpr int64_t ahead = 2 * Format::block_bytes;
  const bool first = tile == 0, once = rows.tiles <= R;
  const uint8_t *a[R], *packed[P], *w[P];
  uint8_t *room[P], *next[P];
  each<R>([&](auto r) ALWAYS_INLINE {
    a[r] = g.a + rows.first(g, tile + r) * g.lda;
    each<P>([&](auto p) ALWAYS_INLINE { tile_zero<2 * r + p>(); });
  });
  each<P>([&](auto p) ALWAYS_INLINE {
    packed[p] = static_cast<const uint8_t*>(g.w) + panel[p] * g.k_blocks * Format::block_bytes;
    room[p] = static_cast<uint8_t*>(g.scratch) + p * g.k_blocks * unpacked_bytes;
  });
  if (!lies_unpacked<Format> && first && g.k_blocks > 0) unpack<Format, P>(packed, room);
  for (int64_t b = 0; b < g.k_blocks; ++b) {
    each<P>([&](auto p) ALWAYS_INLINE {
      w[p] = lies_unpacked<Format> ? packed[p] : room[p] + (once ? b % 2 : b) * unpacked_bytes;
      next[p] = room[p] + (once ? (b + 1) % 2 : b + 1) * unpacked_bytes;
      packed[p] += Format::block_bytes;
      if (first) each<Format::block_bytes / 64>([&](int i) ALWAYS_INLINE { _mm_prefetch(packed[p] + ahead + 64 * i, _MM_HINT_T0); });
    });
    if (!lies_unpacked<Format> && first && b + 1 < g.k_blocks)
      unpack_beside<Format, R, P>(packed, next, a, g.lda, w);
    else
      each<2 * R * P>([&](auto i) ALWAYS_INLINE { multiply<R, P, i>(a, g.lda, w); });
    each<R>([&](auto r) ALWAYS_INLINE { a[r] += block_cols; });
  }
  each<R>([&](auto r) ALWAYS_INLINE {
    each<P>([&](auto p) ALWAYS_INLINE {
      alignas(64) int32_t sums[tile_rows][panel_rows];
      tile_store<2 * r + p>(sums, 64);
      for (int64_t m = 0; m < rows.each; ++m) finish(g, rows.first(g, tile + r) + m, panel[p], Sums(load(sums[m])));
    });
  });
}

template <class Format, int P>
void multiply_panels(const PackedArgs& g, const int64_t (&panel)[P], const Rows& rows) {
  int64_t t = 0;
  for (; t + 2 <= rows.tiles; t += 2) pass<Format, 2, P>(g, panel, rows, t);
  if (t < rows.tiles) pass<Format, 1, P>(g, panel, rows, t);
}

void set_shapes(int64_t rows) {  // of sums and a; w's are whole
  TileConfig config;
  for (int t = 0; t < 8; ++t) config.rows[t] = uint8_t(t < 6 ? rows : tile_rows), config.row_bytes[t] = 64;
  tile_configure(config);
}

template <class Format>
void gemm(const PackedArgs& g) {
  if (g.m <= 0) return;
  if (g.m <= 2) return stream_rows<Format, 2>(g);
  const int64_t tiles = (g.m + tile_rows - 1) / tile_rows, panels = (g.n + panel_rows - 1) / panel_rows, half = panels / 2;
  const Rows rows{tiles, (g.m + tiles - 1) / tiles};
  set_shapes(rows.each);
  for (int64_t p = 0; p < half; ++p) multiply_panels<Format, 2>(g, {p, p + half}, rows);
  if (panels % 2) multiply_panels<Format, 1>(g, {panels - 1}, rows);
  tile_release();
}

int64_t integer_peak(int64_t rounds) {
  set_shapes(tile_rows);
  each<8>([&](auto t) ALWAYS_INLINE { tile_zero<t>(); });
  for (int64_t r = 0; r < rounds; ++r) each<4>([&](auto c) ALWAYS_INLINE { tile_products<c, 4 + c / 2, 6 + c % 2>(); });
  tile_release();
  return rounds * 4 * 2 * tile_rows * panel_rows * 64;
}

}  // namespace

void fill_amx_packed(Kernels& k) {
  k.gemm_u8_w8 = gemm<W8>;
  k.gemm_u8_w4 = gemm<W4>;
  k.gemm_u8_w3 = gemm<W3>;
  k.gemm_u8_w2 = gemm<W2>;
  k.integer_peak = integer_peak;
}

}  // namespace hadal
