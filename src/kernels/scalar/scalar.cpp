// The specification of every kernel, and what runs where nothing better does. Plain loops, one idea: a sum is 16 partial sums, element i
// going to sum i % 16, added pairwise at the end; the vector levels keep the same 16 in registers. Multiply-adds are fused as there, which
// an old processor does in software: every level gives the same bits.
// Bytes per flop of a matrix product: the weights once per row of a, so this is only meant for small work.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/kernels.h"
#include "kernels/scalar/exp.h"

namespace hadal {
namespace {

struct F32 {
  using Value = float;
  static float load(float v) { return v; }
};
struct Bf16 {
  using Value = uint16_t;
  static float load(uint16_t v) { return std::bit_cast<float>(uint32_t(v) << 16); }
};
struct F16 {
  using Value = uint16_t;
  static float load(uint16_t v) {
    const uint32_t sign = uint32_t(v & 0x8000) << 16, magnitude = v & 0x7fff;
    if (magnitude >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 13) * 0x1p112f));
  }
};

struct Sum16 {
  float lane[16] = {};
  float total() {
    for (int width = 8; width > 0; width /= 2)
      for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
    return lane[0];
  }
};

// Calls add(lane, i) for i in [0, n), lane being i % 16, in a shape that vectorises.
template <class Add>
inline void each_of_16(int64_t n, Add add) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int lane = 0; lane < 16; ++lane) add(lane, i + lane);
  for (int lane = 0; i < n; ++i, ++lane) add(lane, i);
}

template <class Format>
float dot(const float* a, const typename Format::Value* b, int64_t k) {
  Sum16 sum;
  each_of_16(k, [&](int lane, int64_t i) { sum.lane[lane] = std::fma(a[i], Format::load(b[i]), sum.lane[lane]); });
  return sum.total();
}

template <class Format>
void gemm(const GemmArgs& g) {
  const auto* b = static_cast<const typename Format::Value*>(g.b);
  for (int64_t n = 0; n < g.n; ++n)
    for (int64_t m = 0; m < g.m; ++m) g.c[m * g.ldc + n] = dot<Format>(g.a + m * g.lda, b + n * g.ldb, g.k);
}

template <class Format>
void mix(const MixArgs& x) {
  const auto* v = static_cast<const typename Format::Value*>(x.v);
  for (int64_t m = 0; m < x.m; ++m)
    for (int64_t k = 0; k < x.k; ++k) {
      const float p = x.p[m * x.ldp + k];
      for (int64_t n = 0; n < x.n; ++n) x.out[m * x.ldout + n] = std::fma(p, Format::load(v[k * x.ldv + n]), x.out[m * x.ldout + n]);
    }
}

void rms_norm(float* out, const float* x, const float* weight, int64_t n, float eps) {
  Sum16 squares;
  each_of_16(n, [&](int lane, int64_t i) { squares.lane[lane] = std::fma(x[i], x[i], squares.lane[lane]); });
  const float factor = 1 / std::sqrt(squares.total() / float(n) + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * factor * weight[i];
}

void layer_norm(float* out, const float* x, const float* weight, const float* bias, int64_t n, float eps) {
  Sum16 sum, squares;
  each_of_16(n, [&](int lane, int64_t i) { sum.lane[lane] += x[i]; });
  const float mean = sum.total() / float(n);
  each_of_16(n, [&](int lane, int64_t i) { squares.lane[lane] = std::fma(x[i] - mean, x[i] - mean, squares.lane[lane]); });
  const float factor = 1 / std::sqrt(squares.total() / float(n) + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = std::fma((x[i] - mean) * factor, weight[i], bias[i]);
}

void silu_mul(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1 + exp_of(-gate[i])) * up[i];
}

void add(float* x, const float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] += y[i];
}

void add_scaled(float* x, const float* y, float s, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = std::fma(s, y[i], x[i]);
}

void scale(float* x, float s, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] *= s;
}

float softmax_block(float* scores, int64_t n, SoftmaxState* state) {
  float max = state->max;
  for (int64_t i = 0; i < n; ++i)
    if (scores[i] > max) max = scores[i];
  const float base = max == -INFINITY ? 0 : max;  // all masked so far: -inf - -inf would be NaN
  Sum16 sum;
  each_of_16(n, [&](int lane, int64_t i) {
    scores[i] = exp_of(scores[i] - base);
    sum.lane[lane] += scores[i];
  });
  const float factor = max == state->max ? 1 : exp_of(state->max - max);
  state->sum = state->sum * factor + sum.total();
  state->max = max;
  return factor;
}

void rope_halves(float* x, const float* cos, const float* sin, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cos[i] - b * sin[i];
    x[i + half] = b * cos[i] + a * sin[i];
  }
}

void rope_pairs(float* x, const float* cos, const float* sin, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cos[i] - b * sin[i];
    x[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

void f16_from_f32(uint16_t* out, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t u = std::bit_cast<uint32_t>(x[i]), sign = u >> 16 & 0x8000, magnitude = u & 0x7fffffff;
    if (magnitude > 0x7f800000) {
      out[i] = uint16_t(sign | 0x7e00);
    } else if (magnitude >= 0x477fe000) {
      out[i] = uint16_t(sign | 0x7bff);
    } else if (magnitude < 0x38800000) {  // subnormal: float addition rounds at 2^-24
      out[i] = uint16_t(sign | (std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000));
    } else {
      out[i] = uint16_t(sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13));
    }
  }
}

template <class Format>
void f32_from(float* out, const uint16_t* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = Format::load(x[i]);
}

uint64_t read_bytes(const void* data, int64_t bytes) {
  const auto* at = static_cast<const char*>(data);
  const int64_t words = bytes / 8, part = words / 4;
  const auto word = [&](int64_t i) {
    uint64_t value;
    std::memcpy(&value, at + 8 * i, 8);
    return value;
  };
  uint64_t sum[4] = {};
  for (int64_t i = 0; i < part; ++i)
    for (int s = 0; s < 4; ++s) sum[s] ^= word(s * part + i);
  for (int64_t i = 4 * part; i < words; ++i) sum[0] ^= word(i);
  return sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
}

int64_t fma_peak(int64_t rounds) {
  float chain[32];
  std::fill(chain, chain + 32, 1.0f);
  asm volatile("" : : "r"(chain) : "memory");  // the compiler no longer knows that they stay 1
  for (int64_t r = 0; r < rounds; ++r)
    for (float& c : chain) c = c * 0.5f + 0.5f;
  asm volatile("" : : "r"(chain) : "memory");  // the result counts as used
  return rounds * 32 * 2;
}

}  // namespace

void fill_scalar(Kernels& k) {
  k = {.name = "scalar",
       .gemm_f32_f32 = gemm<F32>,
       .gemm_f32_bf16 = gemm<Bf16>,
       .gemm_f32_f16 = gemm<F16>,
       .mix_f32_f32 = mix<F32>,
       .mix_f32_f16 = mix<F16>,
       .rms_norm = rms_norm,
       .layer_norm = layer_norm,
       .silu_mul = silu_mul,
       .add = add,
       .add_scaled = add_scaled,
       .scale = scale,
       .softmax_block = softmax_block,
       .rope_halves = rope_halves,
       .rope_pairs = rope_pairs,
       .f16_from_f32 = f16_from_f32,
       .f32_from_bf16 = f32_from<Bf16>,
       .f32_from_f16 = f32_from<F16>,
       .read_bytes = read_bytes,
       .fma_peak = fma_peak};
}

}  // namespace hadal
