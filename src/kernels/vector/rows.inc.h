// Kernels over one row for every vector level; included inside the anonymous namespace of a level, after its Vec.
// Whole vectors first, then one masked vector, so nothing past the end is touched. Sums keep 16 lanes, element i in lane i % 16, whatever
// the width of a vector: both levels give the same bits. exp is 2^n e^r with |r| <= ln 2 / 2 and a polynomial of degree 7 (about 1 ulp).
// All of it is bound by the loads: two flops for a byte at most, except exp with about 16 operations for 4 bytes.

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

void rms_norm(float* out, const float* x, const float* weight, int64_t n, float eps) {
  Sum16 squares;
  each_vector(n, [&](auto lanes, int64_t i, int p) ALWAYS_INLINE {
    const Vec v = lanes.load(x + i);
    squares.part[p] = fma(v, v, squares.part[p]);
  });
  const Vec factor = set(1 / square_root(total(squares.part) / float(n) + eps));
  each_vector(n,
              [&](auto lanes, int64_t i, int) ALWAYS_INLINE { lanes.store(out + i, lanes.load(x + i) * factor * lanes.load(weight + i)); });
}

void layer_norm(float* out, const float* x, const float* weight, const float* bias, int64_t n, float eps) {
  Sum16 sum, squares;
  each_vector(n, [&](auto lanes, int64_t i, int p) ALWAYS_INLINE { sum.part[p] += lanes.load(x + i); });
  const Vec mean = set(total(sum.part) / float(n));
  each_vector(n, [&](auto lanes, int64_t i, int p) ALWAYS_INLINE {
    const Vec v = lanes.keep(lanes.load(x + i) - mean);
    squares.part[p] = fma(v, v, squares.part[p]);
  });
  const Vec factor = set(1 / square_root(total(squares.part) / float(n) + eps));
  each_vector(n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
    lanes.store(out + i, fma((lanes.load(x + i) - mean) * factor, lanes.load(weight + i), lanes.load(bias + i)));
  });
}

void silu_mul(float* gate, const float* up, int64_t n) {
  each_vector(n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
    const Vec x = lanes.load(gate + i);
    lanes.store(gate + i, x / (set(1) + exp(-x)) * lanes.load(up + i));
  });
}

void add(float* x, const float* y, int64_t n) {
  each_vector(n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE { lanes.store(x + i, lanes.load(x + i) + lanes.load(y + i)); });
}

void add_scaled(float* x, const float* y, float s, int64_t n) {
  each_vector(n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE { lanes.store(x + i, fma(set(s), lanes.load(y + i), lanes.load(x + i))); });
}

void scale(float* x, float s, int64_t n) {
  each_vector(n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE { lanes.store(x + i, lanes.load(x + i) * set(s)); });
}

float softmax_block(float* scores, int64_t n, SoftmaxState* state) {
  constexpr float infinity = __builtin_inff();
  Vec most = set(state->max);
  each_vector(n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE { most = max(lanes.load(scores + i, -infinity), most); });
  const float top = largest(most), base = top == -infinity ? 0 : top;  // all masked so far: -inf - -inf would be NaN
  Sum16 sum;
  each_vector(n, [&](auto lanes, int64_t i, int p) ALWAYS_INLINE {
    const Vec e = exp(lanes.load(scores + i) - set(base));
    lanes.store(scores + i, e);
    sum.part[p] += lanes.keep(e);
  });
  const float factor = top == state->max ? 1 : exp(state->max - top);
  state->sum = state->sum * factor + total(sum.part);
  state->max = top;
  return factor;
}
