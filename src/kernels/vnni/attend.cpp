// Attention over int8 pages with AVX-512 VNNI. A line of a part is 16 rows x 4 columns, 64 bytes.
// Scores: a line is 16 keys in 16 lanes; vpdpbusd multiplies it with 4 columns of one query in every lane. Keys are made unsigned by
// adding 128, which adds 128 * q_sum to each dot product. Tile: 16 keys x up to 8 queries, one sum each; 64 bytes feed 8 x 64 products.
// Values: a byte shuffle in each 128-bit lane turns 4 rows x 4 columns round, so a lane holds the 4 rows of each of 4 columns, to be
// multiplied with the 4 rows' probabilities; a lane's sums are of 4 rows, added over the lanes at the page's end. Tile: 16 columns x up to
// 4 rows of p: 16 sums in registers.
#include <immintrin.h>

#include "kernels/kernels.h"

namespace hadal {
namespace {

#define INLINE __attribute__((always_inline)) inline

INLINE __m512i load(const void* p) { return _mm512_loadu_si512(p); }

// The same operations as vector/rows.inc.h's exp.
INLINE __m512 exp_of(__m512 x) {
  constexpr double ln2 = 0x1.62e42fefa39efp-1;
  constexpr float upper = 0x1.62e4p-1f, lower = float(ln2 - upper);
  x = _mm512_min_ps(_mm512_set1_ps(89), _mm512_max_ps(_mm512_set1_ps(-104.5f), x));
  const __m512 n = _mm512_roundscale_ps(x * _mm512_set1_ps(float(1 / ln2)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-lower), _mm512_fmadd_ps(n, _mm512_set1_ps(-upper), x));
  constexpr float taylor[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  __m512 sum = _mm512_set1_ps(1.0f / 5040);
#pragma GCC unroll 8
  for (const float t : taylor) sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(t));
  const __m512i whole = _mm512_cvtps_epi32(n), half = _mm512_srai_epi32(whole, 1), bias = _mm512_set1_epi32(127);
  const auto power = [&](__m512i e) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(e, bias), 23)); };
  return sum * power(half) * power(_mm512_sub_epi32(whole, half));
}
INLINE float exp_of(float x) { return _mm512_cvtss_f32(exp_of(_mm512_set1_ps(x))); }

INLINE float total(__m512 v) {  // 8 + 8, 4 + 4, 2 + 2, 1 + 1
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

INLINE __mmask16 first_lanes(int64_t count) { return count >= 16 ? 0xffff : count <= 0 ? 0 : __mmask16((1u << count) - 1); }

float quantize(int8_t* out, const float* x, int64_t n, int32_t* sum) {
  __m512 most = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += 16) most = _mm512_max_ps(_mm512_abs_ps(_mm512_maskz_loadu_ps(first_lanes(n - i), x + i)), most);
  const float top = _mm512_reduce_max_ps(most);
  const bool usable = top > 1e-30f && top < 1e38f;
  const __m512 inverse = _mm512_set1_ps(usable ? 127 / top : 0), least = _mm512_set1_ps(-127);
  __m512i all = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 live = first_lanes(n - i);
    const __m512 v = _mm512_roundscale_ps(_mm512_maskz_loadu_ps(live, x + i) * inverse, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512i q = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(v, least), _mm512_set1_ps(127)));
    all = _mm512_mask_add_epi32(all, live, all, q);
    _mm512_mask_cvtepi32_storeu_epi8(out + i, live, q);
  }
  *sum = _mm512_reduce_add_epi32(all);
  return usable ? top * (1.f / 127) : 0;
}

template <int rows>
INLINE void score_panel(const ScoreArgs& a, int64_t m, int64_t panel) {
  const auto* k = static_cast<const char*>(a.k);
  const char* line = k + panel * 16 * a.dims;
  const __m512i bias = _mm512_set1_epi8(char(0x80));
  constexpr int chains = rows <= 2 ? 4 : rows <= 4 ? 2 : 1;  // sums of a row: enough to hide the latency
  __m512i sum[rows][chains];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < chains; ++c) sum[r][c] = _mm512_setzero_si512();
  const int8_t* q[rows];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) q[r] = a.q + (m + r) * a.ldq;
  const auto step = [&](int64_t d, int c) __attribute__((always_inline)) {
    const __m512i keys = _mm512_xor_si512(load(line + d * 16), bias);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      int32_t four;
      __builtin_memcpy(&four, q[r] + d, 4);
      sum[r][c] = _mm512_dpbusd_epi32(sum[r][c], keys, _mm512_set1_epi32(four));
    }
  };
  int64_t d = 0;
  for (; d + 4 * chains <= a.dims; d += 4 * chains)
#pragma GCC unroll 4
    for (int c = 0; c < chains; ++c) step(d + 4 * c, c);
  for (; d < a.dims; d += 4) step(d, 0);

  const __m512 k_scale = _mm512_loadu_ps(reinterpret_cast<const float*>(k + attend_rows * a.dims) + panel * 16);
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
    __m512i dot = sum[r][0];
#pragma GCC unroll 4
    for (int c = 1; c < chains; ++c) dot = _mm512_add_epi32(dot, sum[r][c]);
    dot = _mm512_sub_epi32(dot, _mm512_set1_epi32(128 * a.q_sum[m + r]));
    float* scores = a.scores + (m + r) * attend_rows + panel * 16;
    const __m512 value = _mm512_cvtepi32_ps(dot), scale = k_scale * _mm512_set1_ps(a.q_scale[m + r]);
    _mm512_storeu_ps(scores, a.add ? _mm512_fmadd_ps(value, scale, _mm512_loadu_ps(scores)) : value * scale);
  }
}

void score_page(const ScoreArgs& a) {
  for (int64_t panel = 0; panel < attend_rows / 16; ++panel) {
    int64_t m = 0;
    for (; m + 8 <= a.m; m += 8) score_panel<8>(a, m, panel);
    if (m + 4 <= a.m) score_panel<4>(a, m, panel), m += 4;
    if (m + 2 <= a.m) score_panel<2>(a, m, panel), m += 2;
    if (m < a.m) score_panel<1>(a, m, panel);
  }
}

struct Dither {
  float row[attend_rows];
};
constexpr Dither make_dither() {
  Dither d{};
  for (int64_t i = 0; i < attend_rows; ++i) {
    int64_t reversed = 0;
    for (int bit = 0; bit < 6; ++bit) reversed |= (i >> bit & 1) << (5 - bit);
    d.row[i] = (float(reversed) + 0.5f) / 64;
  }
  return d;
}
constexpr Dither dither = make_dither();

INLINE void softmax_row(const PageSoftmaxArgs& a, int64_t m) {
  constexpr float infinity = __builtin_inff();
  SoftmaxState& state = a.state[m];
  __m512 score[4], most = _mm512_set1_ps(state.max);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __mmask16 live = __mmask16(a.visible[m] >> 16 * i);
    score[i] = _mm512_mask_loadu_ps(_mm512_set1_ps(-infinity), live, a.scores + m * attend_rows + 16 * i);
    most = _mm512_max_ps(score[i], most);
  }
  const float max = _mm512_reduce_max_ps(most);
  const __m512 base = _mm512_set1_ps(max == -infinity ? 0 : max);
  __m512 sum = _mm512_setzero_ps(), largest = _mm512_setzero_ps();
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512 p = exp_of(score[i] - base);
    sum = sum + p;
    score[i] = p * _mm512_loadu_ps(a.v_scale + 16 * i);
    largest = _mm512_max_ps(score[i], largest);
  }
  const float top = _mm512_reduce_max_ps(largest);
  const bool usable = top > 1e-30f;
  const __m512 to_integer = _mm512_set1_ps(usable ? 255 / top : 0);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512 v = _mm512_max_ps(_mm512_fmadd_ps(score[i], to_integer, _mm512_loadu_ps(dither.row + 16 * i)), _mm512_setzero_ps());
    const __m512i u = _mm512_cvttps_epi32(_mm512_min_ps(v, _mm512_set1_ps(255)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(a.p + m * attend_rows + 16 * i), _mm512_cvtepi32_epi8(u));
  }
  const float factor = max == state.max ? 1 : exp_of(state.max - max);
  a.factor[m] = factor;
  a.weight[m] = usable ? top * (1.f / 255) : 0;
  state.sum = _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(state.sum), _mm_set_ss(factor), _mm_set_ss(total(sum))));
  state.max = max;
}

void softmax_page(const PageSoftmaxArgs& a) {
  for (int64_t m = 0; m < a.m; ++m)
    if (a.visible[m] != 0) softmax_row(a, m);
}

// Sums over the four lanes of four vectors: lane j of the result is the sum of v[j]'s lanes.
INLINE __m512i add_lanes(__m512i v0, __m512i v1, __m512i v2, __m512i v3) {
  const auto pair = [](__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
  };
  return pair(pair(v0, v1), pair(v2, v3));
}

// 16 columns from `first` on, of which a part may have fewer; `lines`: groups of 4 columns that are there.
template <int rows, bool whole>
INLINE void mix_columns(const MixPageArgs& a, int64_t m, int64_t first, int lines) {
  const __m512i turn = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const __m512i spread = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  __m512i sum[rows][4];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sum[r][i] = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (int64_t panel = 0; panel < attend_rows / 16; ++panel) {
    const char* line = static_cast<const char*>(a.v) + panel * 16 * a.dims + first * 16;
    __m512i values[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) values[i] = whole || i < lines ? _mm512_shuffle_epi8(load(line + 64 * i), turn) : _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const __m128i p = _mm_loadu_si128(reinterpret_cast<const __m128i*>(a.p + (m + r) * attend_rows + panel * 16));
      const __m512i weights = _mm512_permutexvar_epi32(spread, _mm512_castsi128_si512(p));
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) sum[r][i] = _mm512_dpbusd_epi32(sum[r][i], weights, values[i]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
    if (a.visible[m + r] == 0) continue;
    float* out = a.out + (m + r) * a.ldout + first;
    const __m512 all = _mm512_cvtepi32_ps(add_lanes(sum[r][0], sum[r][1], sum[r][2], sum[r][3]));
    const __m512 before = _mm512_loadu_ps(out) * _mm512_set1_ps(a.factor[m + r]);
    _mm512_storeu_ps(out, _mm512_fmadd_ps(all, _mm512_set1_ps(a.weight[m + r]), before));
  }
}

template <int rows>
INLINE void mix_rows(const MixPageArgs& a, int64_t m) {
  int64_t first = 0;
  for (; first + 16 <= a.dims; first += 16) mix_columns<rows, true>(a, m, first, 4);
  if (first < a.dims) mix_columns<rows, false>(a, m, first, int(a.dims - first) / 4);
}

void mix_page(const MixPageArgs& a) {
  int64_t m = 0;
  for (; m + 4 <= a.m; m += 4) mix_rows<4>(a, m);
  if (m + 2 <= a.m) mix_rows<2>(a, m), m += 2;
  if (m < a.m) mix_rows<1>(a, m);
}

void merge(float* out, SoftmaxState* state, const float* other, const SoftmaxState* other_state, int64_t n) {
  const float max = state->max > other_state->max ? state->max : other_state->max;
  if (max == -__builtin_inff()) return;
  const float mine = exp_of(state->max - max), theirs = exp_of(other_state->max - max);
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 live = first_lanes(n - i);
    const __m512 before = _mm512_maskz_loadu_ps(live, out + i) * _mm512_set1_ps(mine);
    _mm512_mask_storeu_ps(out + i, live, _mm512_fmadd_ps(_mm512_maskz_loadu_ps(live, other + i), _mm512_set1_ps(theirs), before));
  }
  state->sum = _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(other_state->sum), _mm_set_ss(theirs), _mm_set_ss(state->sum * mine)));
  state->max = max;
}

}  // namespace

void fill_vnni_attend(Kernels& k) {
  k.quantize = quantize;
  k.score_page = score_page;
  k.softmax_page = softmax_page;
  k.mix_page = mix_page;
  k.merge = merge;
}

}  // namespace hadal
