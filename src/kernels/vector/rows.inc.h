// Kernels over one row for every vector level; included inside the anonymous namespace of a level, after its Vec.
// Whole vectors first, then one masked vector, so nothing past the end is touched. Sums keep 16 lanes, element i in lane i % 16, whatever
// the width of a vector: both levels give the same bits.
// All of it is bound by the loads: two flops for a byte at most, except exp with about 16 operations for 4 bytes.

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
