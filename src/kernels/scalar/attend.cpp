// The specification of attention over int8 pages: plain loops over the layout of kernels/attend.h. exp is the polynomial of the vector
// levels (vector/rows.inc.h), operation by operation, with std::fma where they fuse.
#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/kernels.h"
#include "kernels/scalar/exp.h"

namespace hadal {
namespace {

float quantize(int8_t* out, const float* x, int64_t n, int32_t* sum) {
  float most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::abs(x[i]));
  const bool usable = most > 1e-30f && most < 1e38f;
  const float inverse = usable ? 127 / most : 0;
  int32_t total = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float v = std::nearbyint(x[i] * inverse);
    out[i] = int8_t(v >= -127 ? std::min(v, 127.f) : -127.f);  // a NaN becomes -127
    total += out[i];
  }
  *sum = total;
  return usable ? most * (1.f / 127) : 0;
}

// Column d of row i of a part.
int64_t at(int64_t i, int64_t d, int64_t dims) { return i / 16 * 16 * dims + d / 4 * 64 + i % 16 * 4 + d % 4; }

void score_page(const ScoreArgs& a) {
  const auto* k = static_cast<const int8_t*>(a.k);
  const auto* k_scale = reinterpret_cast<const float*>(k + attend_rows * a.dims);
  for (int64_t m = 0; m < a.m; ++m)
    for (int64_t panel = 0; panel < attend_rows / 16; ++panel) {
      int32_t dot[16] = {};
      for (int64_t d = 0; d < a.dims; d += 4)
        for (int64_t i = 0; i < 16; ++i)
          for (int64_t j = 0; j < 4; ++j) dot[i] += a.q[m * a.ldq + d + j] * k[at(panel * 16 + i, d + j, a.dims)];
      for (int64_t i = 0; i < 16; ++i) {
        float& score = a.scores[m * attend_rows + panel * 16 + i];
        const float scale = k_scale[panel * 16 + i] * a.q_scale[m];
        score = a.add ? std::fma(float(dot[i]), scale, score) : float(dot[i]) * scale;
      }
    }
}

float dither(int64_t i) {  // six bits reversed
  int64_t reversed = 0;
  for (int bit = 0; bit < 6; ++bit) reversed |= (i >> bit & 1) << (5 - bit);
  return (float(reversed) + 0.5f) / 64;
}

void softmax_row(const PageSoftmaxArgs& a, int64_t m) {
  SoftmaxState& state = a.state[m];
  float p[attend_rows], lane[16] = {}, max = state.max, most = 0;
  for (int64_t i = 0; i < attend_rows; ++i) {
    p[i] = a.visible[m] >> i & 1 ? a.scores[m * attend_rows + i] : -INFINITY;
    if (p[i] > max) max = p[i];
  }
  const float base = max == -INFINITY ? 0 : max;
  for (int64_t i = 0; i < attend_rows; ++i) {
    p[i] = exp_of(p[i] - base);
    lane[i % 16] += p[i];
    p[i] *= a.v_scale[i];
    if (p[i] > most) most = p[i];
  }
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  const float to_integer = most > 1e-30f ? 255 / most : 0;
  for (int64_t i = 0; i < attend_rows; ++i) {
    const float v = std::fma(p[i], to_integer, dither(i));
    a.p[m * attend_rows + i] = uint8_t(v >= 0 ? std::min(v, 255.f) : 0.f);
  }
  a.factor[m] = max == state.max ? 1 : exp_of(state.max - max);
  a.weight[m] = most > 1e-30f ? most * (1.f / 255) : 0;
  state.sum = std::fma(state.sum, a.factor[m], lane[0]);
  state.max = max;
}

void softmax_page(const PageSoftmaxArgs& a) {
  for (int64_t m = 0; m < a.m; ++m)
    if (a.visible[m] != 0) softmax_row(a, m);
}

void mix_page(const MixPageArgs& a) {
  const auto* v = static_cast<const int8_t*>(a.v);
  for (int64_t m = 0; m < a.m; ++m) {
    if (a.visible[m] == 0) continue;
    for (int64_t d = 0; d < a.dims; ++d) {
      int32_t sum = 0;
      for (int64_t i = 0; i < attend_rows; ++i) sum += a.p[m * attend_rows + i] * v[at(i, d, a.dims)];
      float& out = a.out[m * a.ldout + d];
      out = std::fma(float(sum), a.weight[m], out * a.factor[m]);
    }
  }
}

float best_in_sketch(const int8_t* q, const void* sketch, int64_t dims, uint64_t visible) {
  const auto* negative = static_cast<const uint64_t*>(sketch);
  const auto* size = reinterpret_cast<const float*>(negative + dims);
  int32_t dot[attend_rows] = {};
  for (int64_t d = 0; d < dims; ++d)
    for (int64_t i = 0; i < attend_rows; ++i) dot[i] += negative[d] >> i & 1 ? -q[d] : q[d];
  float best = -INFINITY;
  for (int64_t i = 0; i < attend_rows; ++i)
    if (visible >> i & 1) best = std::max(best, float(dot[i]) * size[i]);
  return best;
}

void merge(float* out, SoftmaxState* state, const float* other, const SoftmaxState* other_state, int64_t n) {
  const float max = std::max(state->max, other_state->max);
  if (max == -INFINITY) return;
  const float mine = exp_of(state->max - max), theirs = exp_of(other_state->max - max);
  for (int64_t i = 0; i < n; ++i) out[i] = std::fma(other[i], theirs, out[i] * mine);
  state->sum = std::fma(other_state->sum, theirs, state->sum * mine);
  state->max = max;
}

}  // namespace

void fill_scalar_attend(Kernels& k) {
  k.quantize = quantize;
  k.score_page = score_page;
  k.softmax_page = softmax_page;
  k.mix_page = mix_page;
  k.best_in_sketch = best_in_sketch;
  k.merge = merge;
}

}  // namespace hadal
