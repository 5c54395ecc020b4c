// out += p v for every vector level; included inside the anonymous namespace of a level, after its Vec.
// A tile of M rows by V vectors of columns of out is held in registers while k runs; each step broadcasts M values of p and loads V vectors
// of v: M V multiply-adds for M + V loads. k in order for each element, so the tile never shows in the result.
// Bytes per flop: sizeof(v) / 2M.

template <class Format, int M, int V, class Lanes>
INLINE void mix_tile(const MixArgs& x, Lanes lanes, int64_t m0, int64_t n0) {
  const auto* v = static_cast<const typename Format::Value*>(x.v) + n0;
  const float* p = x.p + m0 * x.ldp;
  float* out = x.out + m0 * x.ldout + n0;
  Vec sum[M][V];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int i = 0; i < V; ++i) sum[m][i] = lanes.load(out + m * x.ldout + i * width);
  for (int64_t k = 0; k < x.k; ++k) {
    Vec right[V];
#pragma GCC unroll 8
    for (int i = 0; i < V; ++i) right[i] = Format::load(lanes, v + k * x.ldv + i * width);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vec left = set(p[m * x.ldp + k]);
#pragma GCC unroll 8
      for (int i = 0; i < V; ++i) sum[m][i] = fma(left, right[i], sum[m][i]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int i = 0; i < V; ++i) lanes.store(out + m * x.ldout + i * width, sum[m][i]);
}

template <class Format, int M>
void mix_rows(const MixArgs& x, int64_t m) {
  int64_t n = 0;
  for (; n + mix_vectors * width <= x.n; n += mix_vectors * width) mix_tile<Format, M, mix_vectors>(x, Whole{}, m, n);
  for (; n + width <= x.n; n += width) mix_tile<Format, M, 1>(x, Whole{}, m, n);
  if (n < x.n) mix_tile<Format, M, 1>(x, Part(x.n - n), m, n);
}

template <class Format>
void mix(const MixArgs& x) {
  int64_t m = 0;
  for (; m + mix_m <= x.m; m += mix_m) mix_rows<Format, mix_m>(x, m);
  for (; m < x.m; ++m) mix_rows<Format, 1>(x, m);
}
