// Norms, SwiGLU, rope and the rows of experts of training with their gradients, for every vector level; included after pack.inc.h, whose
// loads and stores convert. One pass over a row reads all it needs and keeps nothing in between: bound by memory, except where there is
// exp.

template <class T>
void rms_norm(const RmsNormArgs<T>& a, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row) {
    const T* x = a.x + row * a.ldx;
    T* out = a.out + row * a.ldout;
    Sum16 squares;
    each_vector(a.n, [&](auto lanes, int64_t i, int part) ALWAYS_INLINE {
      const Vec v = load_wide(lanes, x + i);
      squares.part[part] = fma(v, v, squares.part[part]);
    });
    const float rms = a.rms[row] = 1 / square_root(total(squares.part) / float(a.n) + a.eps);
    each_vector(a.n, [&](auto lanes, int64_t i, int)
                         ALWAYS_INLINE { store_narrow(lanes, out + i, load_wide(lanes, x + i) * set(rms) * lanes.load(a.weight + i)); });
  }
}

template <class T>
void rms_norm_backward(const RmsNormGradArgs<T>& a, int64_t first, int64_t last, float* dweight) {
  for (int64_t row = first; row < last; ++row) {
    const T *x = a.x + row * a.ldx, *dout = a.dout + row * a.lddout;
    T* dx = a.dx + row * a.lddx;
    const float rms = a.rms[row];
    Sum16 sum;
    each_vector(a.n, [&](auto lanes, int64_t i, int part) ALWAYS_INLINE {
      sum.part[part] = fma(load_wide(lanes, x + i) * load_wide(lanes, dout + i), lanes.load(a.weight + i), sum.part[part]);
    });
    const Vec share = set(rms * rms * total(sum.part) / float(a.n)), factor = set(rms);
    each_vector(a.n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
      const Vec v = load_wide(lanes, x + i), d = load_wide(lanes, dout + i);
      lanes.store(dweight + i, fma(d, v * factor, lanes.load(dweight + i)));
      store_narrow(lanes, dx + i, factor * (d * lanes.load(a.weight + i) - v * share));
    });
  }
}

template <class T>
void swiglu(const SwigluArgs<T>& a, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row) {
    const T *gate = a.gate + row * a.ld, *up = a.up + row * a.ld;
    T* out = a.out + row * a.ldout;
    each_vector(a.n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
      const Vec x = load_wide(lanes, gate + i);
      store_narrow(lanes, out + i, x / (set(1) + exp(-x)) * load_wide(lanes, up + i));
    });
  }
}

template <class T>
void swiglu_backward(const SwigluGradArgs<T>& a, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row) {
    const T *gate = a.gate + row * a.ld, *up = a.up + row * a.ld, *dout = a.dout + row * a.lddout;
    T *dgate = a.dgate + row * a.ldgrad, *dup = a.dup + row * a.ldgrad;
    each_vector(a.n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
      const Vec x = load_wide(lanes, gate + i), d = load_wide(lanes, dout + i), sigmoid = set(1) / (set(1) + exp(-x)), slope = d * sigmoid;
      store_narrow(lanes, dgate + i, slope * load_wide(lanes, up + i) * fma(x, set(1) - sigmoid, set(1)));
      store_narrow(lanes, dup + i, slope * x);
    });
  }
}

template <class T>
void gather_choices(const ChoicesArgs<T>& a, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row)
    each_vector(a.n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
      Vec sum = set(0);
      for (int64_t choice = row * a.active; choice < (row + 1) * a.active; ++choice)
        sum = fma(load_wide(lanes, a.sorted + a.place[choice] * a.n + i), set(a.weight ? a.weight[choice] : 1), sum);
      store_narrow(lanes, a.rows + row * a.n + i, sum);
    });
}

template <class T>
void spread_choices(const ChoicesArgs<T>& a, int64_t first, int64_t last) {
  for (int64_t choice = first * a.active; choice < last * a.active; ++choice) {
    const T* from = a.rows + choice / a.active * a.n;
    T* to = a.sorted + a.place[choice] * a.n;
    const Vec weight = set(a.weight ? a.weight[choice] : 1);
    each_vector(a.n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE { store_narrow(lanes, to + i, load_wide(lanes, from + i) * weight); });
  }
}

template <class T>
void weigh_choices(const ChoicesArgs<T>& a, const T* x, float* dot, int64_t first, int64_t last) {
  for (int64_t choice = first * a.active; choice < last * a.active; ++choice) {
    const T* other = x + a.place[choice] * a.n;
    T* row = a.sorted + a.place[choice] * a.n;
    const Vec weight = set(a.weight ? a.weight[choice] : 1);
    Sum16 sum;
    each_vector(a.n, [&](auto lanes, int64_t i, int part) ALWAYS_INLINE {
      const Vec v = load_wide(lanes, row + i);
      sum.part[part] = fma(v, load_wide(lanes, other + i), sum.part[part]);
      store_narrow(lanes, row + i, v * weight);
    });
    dot[choice] = total(sum.part);
  }
}

// Pairs of neighbours as two vectors, and back; of a row that has `left` pairs from here on.
INLINE void load_pairs(int64_t left, const uint16_t* x, Vec* even, Vec* odd) {
  const Vec pairs = Part(left).load(reinterpret_cast<const float*>(x));
  *even = low_half(pairs), *odd = high_half(pairs);
}
INLINE void store_pairs(int64_t left, uint16_t* x, Vec even, Vec odd) {
  Part(left).store(reinterpret_cast<float*>(x), rounded_pair(even, odd));
}
INLINE void load_pairs(int64_t left, const float* x, Vec* even, Vec* odd) {
  const int64_t second = 2 * left - width;
  split(Part(2 * left).load(x), second > 0 ? Part(second).load(x + width) : set(0), even, odd);
}
INLINE void store_pairs(int64_t left, float* x, Vec even, Vec odd) {
  join(&even, &odd);
  Part(2 * left).store(x, even);
  if (2 * left > width) Part(2 * left - width).store(x + width, odd);
}

template <class T>
void rope(const RopeArgs<T>& a, int64_t first, int64_t last) {
  const Vec sign = set(a.back ? -1 : 1);
  for (int64_t row = first; row < last; ++row) {
    const float *cos = a.cos + row % a.times * a.half, *sin = a.sin + row % a.times * a.half;
    for (int64_t head = 0; head < a.heads; ++head) {
      const T* x = a.x + row * a.x_row + head * a.x_head;
      T* out = a.out + row * a.out_row + head * a.out_head;
      for (int64_t i = 0; i < a.half; i += width) {
        const Part lanes(a.half - i);
        const Vec c = lanes.load(cos + i), s = lanes.load(sin + i) * sign;
        Vec u, v;
        if (a.pairs)
          load_pairs(a.half - i, x + 2 * i, &u, &v);
        else
          u = load_wide(lanes, x + i), v = load_wide(lanes, x + a.half + i);
        const Vec one = u * c - v * s, two = v * c + u * s;
        if (a.pairs) {
          store_pairs(a.half - i, out + 2 * i, one, two);
        } else {
          store_narrow(lanes, out + i, one);
          store_narrow(lanes, out + a.half + i, two);
        }
      }
    }
  }
}
