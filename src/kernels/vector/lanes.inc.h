// Rows as vectors, sums over them, and exp, for every vector level; included inside the anonymous namespace of a level, after its Vec.
// exp is 2^n e^r with |r| <= ln 2 / 2 and a polynomial of degree 7 (about 1 ulp).

// x[0] + x[2] and x[1] + x[3], then those two.
INLINE float total(const Vec (&sum)[parts]) {
  const __m128 four = four_of(sum), two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// body(lanes, i, part): lanes of elements i .. i + width, which go to the partial sums of that part.
template <class Body>
INLINE void each_vector(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
#pragma GCC unroll 2
    for (int p = 0; p < parts; ++p) body(Whole{}, i + p * width, p);
#pragma GCC unroll 2
  for (int p = 0; p < parts; ++p)
    if (i + p * width < n) body(Part(n - i - p * width), i + p * width, p);
}

struct Sum16 {
  Vec part[parts];
  INLINE Sum16() {
    for (Vec& v : part) v = set(0);
  }
};

INLINE Vec exp(Vec x) {
  constexpr double ln2 = 0x1.62e42fefa39efp-1;
  constexpr float upper = 0x1.62e4p-1f, lower = float(ln2 - upper);  // n * upper is exact
  // Beyond these the result is 0 or infinity; max and min pass a NaN on because it is their second operand.
  x = min(set(89), max(set(-104.5f), x));
  const Vec n = round(x * set(float(1 / ln2)));
  const Vec r = fma(n, set(-lower), fma(n, set(-upper), x));
  constexpr float taylor[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  Vec sum = set(1.0f / 5040);
#pragma GCC unroll 8
  for (int i = 0; i < 7; ++i) sum = fma(sum, r, set(taylor[i]));
  return scale_by_power(sum, n);
}
INLINE float exp(float x) {
  float lane[width];
  Whole{}.store(lane, exp(set(x)));
  return lane[0];
}
INLINE float square_root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
