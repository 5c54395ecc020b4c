// c = a b of training for every vector level; included inside the anonymous namespace of a level, after its Vec.
// k runs over units of 32 bits: floats, or pairs of bf16, which `Units::add` multiplies and adds to float sums. One element of a meets
// whole vectors of b: b is packed so that a row holds the units of one k (pairs interleaved), a is read where it lies, by two strides. So
// transposed products cost nothing extra, and a tile of 6 x 4 vectors makes 24 multiply-adds for 10 loads.

struct FloatUnits {
  using Value = float;
  static constexpr int64_t values = 1;  // in a unit
  INLINE static Vec add(Vec sum, Vec a, Vec b) { return fma(a, b, sum); }
};
struct PairUnits {
  using Value = uint16_t;
  static constexpr int64_t values = 2;
  INLINE static Vec add(Vec sum, Vec a, Vec b) {
#ifdef __AVX512BF16__
    return _mm512_dpbf16_ps(sum, __m512bh(_mm512_castps_si512(a)), __m512bh(_mm512_castps_si512(b)));
#else
    return fma(high_half(a), high_half(b), fma(low_half(a), low_half(b), sum));
#endif
  }
};

template <class T>
struct UnitsFor {
  using type = PairUnits;
};
template <>
struct UnitsFor<float> {
  using type = FloatUnits;
};
template <class T>
using UnitsOf = typename UnitsFor<T>::type;

template <class Units>
constexpr int64_t units_of(int64_t values) {
  return (values + Units::values - 1) / Units::values;
}
constexpr int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }

struct Product {  // c[m, n] = (c[m, n] * factor[m] if `add`) + sum over k of a(m, k) b[k, n]
  float* c;
  const void *a, *b;
  int64_t m, n, units, a_row, a_unit, b_unit, ldc;  // steps of a and b in bytes; rows of b are readable up to padded(n)
  bool add = false;
  const float* factor = nullptr;  // null: 1
  bool half = false;              // behind the last element of a row of a lies nothing: it is the first of a pair
};

template <class Units, int M, int V>
void product_tile(const Product& x, int64_t m0, int64_t n0) {
  const char *a = static_cast<const char*>(x.a) + m0 * x.a_row, *b = static_cast<const char*>(x.b) + n0 * 4;
  float* c = x.c + m0 * x.ldc + n0;
  const auto lanes = [&](int v) ALWAYS_INLINE { return Part(x.n - n0 - v * width); };
  Vec sum[M][V];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[m][v] = x.add ? lanes(v).load(c + m * x.ldc + v * width) : set(0);
  if (x.add && x.factor)
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[m][v] = sum[m][v] * set(x.factor[m0 + m]);
  const auto step = [&](auto left_of) ALWAYS_INLINE {
    Vec right[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) right[v] = Whole{}.load(reinterpret_cast<const float*>(b) + v * width);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vec left = left_of(a + m * x.a_row);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[m][v] = Units::add(sum[m][v], left, right[v]);
    }
    a += x.a_unit, b += x.b_unit;
  };
  const int64_t whole = x.units - x.half;
  for (int64_t k = 0; k < whole; ++k) step([](const char* unit) ALWAYS_INLINE { return broadcast(unit); });
  if (x.half)
    step([](const char* unit) ALWAYS_INLINE {
      char one[4] = {};
      __builtin_memcpy(one, unit, 2);
      return broadcast(one);
    });
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) lanes(v).store(c + m * x.ldc + v * width, sum[m][v]);
}

template <class Units, int V, int M = product_rows>
INLINE void product_rows_of(const Product& x, int64_t rows, int64_t m0, int64_t n0) {
  if (rows >= M) return product_tile<Units, M, V>(x, m0, n0);
  if constexpr (M > 1) product_rows_of<Units, V, M - 1>(x, rows, m0, n0);
}

template <class Units, int V>
INLINE int64_t product_columns(const Product& x, int64_t n0, int64_t rows) {
  for (; n0 + (V - 1) * width < x.n; n0 += V * width)
    for (int64_t m = 0; m < x.m; m += rows) product_rows_of<Units, V>(x, rows < x.m - m ? rows : x.m - m, m, n0);
  return n0;
}

template <class Units>
void product(const Product& x) {
  if (x.m <= 0) return;
  const int64_t tiles = (x.m + product_rows - 1) / product_rows, rows = (x.m + tiles - 1) / tiles;  // shared out evenly
  int64_t n = product_columns<Units, product_vectors>(x, 0, rows);
  if constexpr (product_vectors > 2) n = product_columns<Units, 2>(x, n, rows);
  product_columns<Units, 1>(x, n, rows);
}

template <class Units>
int64_t product_peak(int64_t rounds) {
  Vec chain[fma_chains];
  for (Vec& c : chain) c = set(1);
  const Vec half = set(0.5f);
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 32
    for (int i = 0; i < fma_chains; ++i) chain[i] = Units::add(chain[i], half, half);
  asm volatile("" : : "r"(chain) : "memory");  // the result counts as used
  return rounds * fma_chains * width * 2 * Units::values;
}
