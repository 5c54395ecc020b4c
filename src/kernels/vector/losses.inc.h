// The losses of training with their gradients, for every vector level; included after pack.inc.h. A row of logits is read once for its
// largest, once for its sum, once more for divergences, and once to be overwritten: bound by exp and, where it leaves the caches, by
// memory.

// Natural logarithm of numbers > 0, relative error about 1e-7 of max(1, |log|): 2^e m with m in [sqrt(1/2), sqrt(2)), log m = 2 atanh(s).
INLINE Vec log(Vec v) {
  constexpr float ln2 = 0x1.62e43p-1f;
  Vec e = exponent(v), m = mantissa(v);
  const Vec larger = round(m * set(0x1.6a09e6p-1f) - set(0.5f));  // 1 above sqrt(2), else 0
  m = m - m * set(0.5f) * larger, e = e + larger;
  const Vec s = (m - set(1)) / (m + set(1)), squared = s * s;
  Vec sum = set(2.0f / 11);
  constexpr float series[] = {2.0f / 9, 2.0f / 7, 2.0f / 5, 2.0f / 3, 2.0f};
#pragma GCC unroll 8
  for (const float c : series) sum = fma(sum, squared, set(c));
  return fma(e, set(ln2), sum * s);
}

INLINE float wide(float v) { return v; }
INLINE float wide(uint16_t v) {
  const uint32_t bits = uint32_t(v) << 16;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

template <class T>
struct Softmax {  // of a row of logits times `factor`, which is positive
  const T* x;
  float factor, log_sum;
  Softmax(const T* x_, int64_t n, float factor_) : x(x_), factor(factor_) {
    Vec most = set(-__builtin_inff());
    each_vector(n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE { most = max(lanes.keep(load_wide(lanes, x + i), most), most); });
    const float top = largest(most) * factor;
    Sum16 sum;
    each_vector(n, [&](auto lanes, int64_t i, int part)
                       ALWAYS_INLINE { sum.part[part] += lanes.keep(exp(load_wide(lanes, x + i) * set(factor) - set(top))); });
    log_sum = top + __builtin_logf(total(sum.part));
  }
  template <class Lanes>
  INLINE Vec log_of(Lanes lanes, int64_t i) const {
    return load_wide(lanes, x + i) * set(factor) - set(log_sum);
  }
};

struct Divergence {  // of a vector of entries: their terms of the losses
  Vec p, q, log_p, log_q, log_m;
  INLINE Divergence(Vec log_p_, Vec log_q_, float beta, bool mixes) : p(exp(log_p_)), q(exp(log_q_)), log_p(log_p_), log_q(log_q_) {
    const Vec most = max(log_p, log_q);
    log_m = mixes ? most + log(fma(set(beta), exp(log_p - most), set(1 - beta) * exp(log_q - most))) : most;
  }
};

template <class T>
void token_loss_row(const TokenLossArgs<T>& a, int64_t row) {
  T* x = a.logits + row * a.ld;
  float* loss = a.loss + row * 4;
  for (int i = 0; i < 4; ++i) loss[i] = 0;
  const float weight = a.row_weight ? a.row_weight[row] : 1;
  const bool predicts = a.share[0] != 0, mixes = a.share[3] != 0, distils = a.share[1] != 0 || a.share[2] != 0 || mixes;
  const Softmax<T> plain(x, predicts ? a.vocab : 0, 1);
  const Softmax<T> q(x, distils ? a.vocab : 0, 1 / a.temperature),
      p(distils ? a.teacher + row * a.ld_teacher : x, distils ? a.vocab : 0, 1 / a.temperature);

  const int64_t targets = predicts ? a.targets : 0;
  const int64_t* target = a.target + row * targets;
  const auto weight_of = [&](int64_t j) { return a.target_weight ? a.target_weight[row * targets + j] : 1; };
  float mass = 0;
  for (int64_t j = 0; j < targets; ++j) {
    if (target[j] < 0) continue;
    loss[0] -= weight_of(j) * (wide(x[target[j]]) - plain.log_sum);
    mass += weight_of(j);
  }

  float student = 0;  // (1 - beta) KL(q || m)
  if (distils) {
    Sum16 forward, reverse, of_p, of_q;
    each_vector(a.vocab, [&](auto lanes, int64_t i, int part) ALWAYS_INLINE {
      const Divergence d(p.log_of(lanes, i), q.log_of(lanes, i), a.beta, mixes);
      forward.part[part] += lanes.keep(d.p * (d.log_p - d.log_q));
      reverse.part[part] += lanes.keep(d.q * (d.log_q - d.log_p));
      of_p.part[part] += lanes.keep(d.p * (d.log_p - d.log_m));
      of_q.part[part] += lanes.keep(d.q * (d.log_q - d.log_m));
    });
    if (a.share[1] != 0) loss[1] = total(forward.part);
    if (a.share[2] != 0) loss[2] = total(reverse.part);
    student = (1 - a.beta) * total(of_q.part);
    if (mixes) loss[3] = a.beta * total(of_p.part) + student;
  }

  constexpr int64_t chunk = 512;  // gradients as floats, until the targets have had their share
  alignas(64) float gradient[chunk];
  for (int64_t first = 0; first < a.vocab; first += chunk) {
    const int64_t count = a.vocab - first < chunk ? a.vocab - first : chunk;
    each_vector(count, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
      Vec g = set(0);
      if (predicts) g = set(weight * a.share[0] * mass) * exp(plain.log_of(lanes, first + i));
      if (distils) {
        const Divergence d(p.log_of(lanes, first + i), q.log_of(lanes, first + i), a.beta, mixes);
        Vec sum = set(a.share[1]) * (d.q - d.p) + set(a.share[2]) * d.q * (d.log_q - d.log_p - set(loss[2]));
        if (mixes) sum = fma(set(a.share[3]) * d.q, set(1 - a.beta) * (d.log_q - d.log_m) - set(student), sum);
        g = fma(sum, set(weight * q.factor), g);
      }
      lanes.store(gradient + i, g);
    });
    for (int64_t j = 0; j < targets; ++j)
      if (target[j] >= first && target[j] < first + count) gradient[target[j] - first] -= weight * a.share[0] * weight_of(j);
    each_vector(count, [&](auto lanes, int64_t i, int) ALWAYS_INLINE { store_narrow(lanes, x + first + i, lanes.load(gradient + i)); });
  }
}

template <class T>
void token_loss(const TokenLossArgs<T>& a, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row) token_loss_row(a, row);
}
