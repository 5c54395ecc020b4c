// c = a b^T for every vector level; included inside the anonymous namespace of a level, after its Vec.
// A tile of M x N outputs keeps 16 partial sums each in registers over the whole of k, so the order of addition never depends on the tile.
// Many rows: a block of a stays in the L2 cache, N rows of b in L1 while the block passes them; b streams from memory once per block.
// The first tile of N rows of b also fetches the next N, in the order of their addresses, the order that memory likes best.
// Bytes per flop: sizeof(b) / 2M from memory, (4M + sizeof(b) N) / 2MN from the caches.

INLINE __m128 totals(const Vec (&sums)[4][parts]) {
  __m128 a = four_of(sums[0]), b = four_of(sums[1]), c = four_of(sums[2]), d = four_of(sums[3]);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  return _mm_add_ps(_mm_add_ps(a, c), _mm_add_ps(b, d));
}

template <int N>
INLINE void store_totals(float* c, const Vec (&sums)[N][parts]) {
  if constexpr (N % 4 == 0) {
#pragma GCC unroll 8
    for (int n = 0; n < N; n += 4) {
      Vec four[4][parts];
#pragma GCC unroll 8
      for (int i = 0; i < 4 * parts; ++i) four[i / parts][i % parts] = sums[n + i / parts][i % parts];
      _mm_storeu_ps(c + n, totals(four));
    }
  } else {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) c[n] = total(sums[n]);
  }
}

template <class Format, int M, int N, class Lanes>
INLINE void step(Vec (&sum)[M][N][parts], Lanes lanes, int part, const float* a, int64_t lda, const typename Format::Value* b,
                 int64_t ldb) {
  Vec right[N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) right[n] = Format::load(lanes, b + n * ldb);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    const Vec left = lanes.load(a + m * lda);
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) sum[m][n][part] = fma(left, right[n], sum[m][n][part]);
  }
}

template <class Format, int M, int N, bool streams>
void tile(const GemmArgs& g, const float* a, const typename Format::Value* b, float* c) {
  Vec sum[M][N][parts];
#pragma GCC unroll 64
  for (int i = 0; i < M * N * parts; ++i) sum[i / parts / N][i / parts % N][i % parts] = set(0);

  // Where rows have gaps, this fetches some of what lies between them; past the end of b it fetches nothing that exists.
  constexpr int64_t step_bytes = 16 * N * int64_t(sizeof(*b));
  const char* next = reinterpret_cast<const char*>(b + N * g.ldb);
  int64_t k = 0;
  for (; k + 16 <= g.k; k += 16) {
    if (streams) {
#pragma GCC unroll 8
      for (int64_t i = 0; i < step_bytes; i += 64) _mm_prefetch(next + i, _MM_HINT_T0);
      next += step_bytes;
    }
#pragma GCC unroll 2
    for (int p = 0; p < parts; ++p) step<Format>(sum, Whole{}, p, a + k + p * width, g.lda, b + k + p * width, g.ldb);
  }
  if (k < g.k)
#pragma GCC unroll 2
    for (int p = 0; p < parts; ++p) step<Format>(sum, Part(g.k - k - p * width), p, a + k + p * width, g.lda, b + k + p * width, g.ldb);

#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) store_totals<N>(c + m * g.ldc, sum[m]);
}

template <class Format, int N, bool streams, int M = tile_m>
INLINE void tile_of_rows(int64_t rows, const GemmArgs& g, const float* a, const typename Format::Value* b, float* c) {
  if (rows >= M) return tile<Format, M, N, streams>(g, a, b, c);
  if constexpr (M > 1) tile_of_rows<Format, N, streams, M - 1>(rows, g, a, b, c);
}

// Columns [first, g.n) in groups of N, rows [m0, m1); returns the first column that is left. Rows are shared out evenly over their tiles.
template <class Format, int N>
INLINE int64_t columns(const GemmArgs& g, int64_t first, int64_t m0, int64_t m1) {
  const auto* b = static_cast<const typename Format::Value*>(g.b);
  const int64_t tiles = (m1 - m0 + tile_m - 1) / tile_m, rows = (m1 - m0 + tiles - 1) / tiles;
  int64_t n = first;
  for (; n + N <= g.n; n += N)
    for (int64_t m = m0; m < m1; m += rows) {
      const float* a = g.a + m * g.lda;
      float* c = g.c + m * g.ldc + n;
      const int64_t count = rows < m1 - m ? rows : m1 - m;
      if (m == m0)
        tile_of_rows<Format, N, true>(count, g, a, b + n * g.ldb, c);  // the first tile fetches the rows of b for the next N columns
      else
        tile_of_rows<Format, N, false>(count, g, a, b + n * g.ldb, c);
    }
  return n;
}

template <class Format>
void gemm(const GemmArgs& g) {
  constexpr int64_t block_bytes = 384 << 10;
  const auto* b = static_cast<const typename Format::Value*>(g.b);
  if (g.m == 1) {
    int64_t n = 0;
    for (; n + stream_n <= g.n; n += stream_n) tile<Format, 1, stream_n, true>(g, g.a, b + n * g.ldb, g.c + n);
    columns<Format, 1>(g, columns<Format, tile_n>(g, n, 0, 1), 0, 1);
    return;
  }
  const int64_t fitting = block_bytes / (4 * (g.k > 0 ? g.k : 1)) / tile_m * tile_m, block = fitting > tile_m ? fitting : tile_m;
  for (int64_t m = 0; m < g.m; m += block) {
    const int64_t end = m + block < g.m ? m + block : g.m;
    columns<Format, 1>(g, columns<Format, tile_n>(g, 0, m, end), m, end);
  }
}
