// Attention over int8 pages with AVX2. Half a line of a part is 8 rows x 4 columns, 32 bytes.
// Scores: |k| as unsigned times q with k's sign, pairs added in 16 bits (at most 2 x 127 x 127), then to 32: three operations for 32
// products. Tile: 16 keys x up to 4 queries, two sums each.
// Values: a line is turned to 4 rows of each column by a byte shuffle; p reaches 255, so the products of a pair need more than 16 signed
// bits: even and odd rows are widened to 16 bits first and multiplied there, which adds pairs in 32 bits. 16 sums would not fit: a tile is
// 4 columns x up to 4 rows of p, the lanes added at the page's end.
#include <immintrin.h>

#include "kernels/kernels.h"

namespace hadal {
namespace {

#define INLINE __attribute__((always_inline)) inline

INLINE __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
INLINE __m256 absolute(__m256 v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), v); }
INLINE __m256 round(__m256 v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE __m256i four_bytes(const void* p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}

// The same operations as vector/rows.inc.h's exp, for x <= 0.
INLINE __m256 exp_of(__m256 x) {
  constexpr double ln2 = 0x1.62e42fefa39efp-1;
  constexpr float upper = 0x1.62e4p-1f, lower = float(ln2 - upper);
  x = _mm256_max_ps(_mm256_set1_ps(-104.5f), x);
  const __m256 n = round(x * _mm256_set1_ps(float(1 / ln2)));
  const __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-lower), _mm256_fmadd_ps(n, _mm256_set1_ps(-upper), x));
  constexpr float taylor[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  __m256 sum = _mm256_set1_ps(1.0f / 5040);
#pragma GCC unroll 8
  for (const float t : taylor) sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(t));
  const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
  const auto power = [&](__m256i e) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, bias), 23)); };
  return sum * power(half) * power(_mm256_sub_epi32(whole, half));
}
INLINE float exp_of(float x) { return _mm256_cvtss_f32(exp_of(_mm256_set1_ps(x))); }

INLINE float largest(__m256 v) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}
INLINE float total(__m256 low, __m256 high) {  // 8 + 8, 4 + 4, 2 + 2, 1 + 1 of the 16 sums
  const __m256 eight = low + high;
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
INLINE float fma_of(float a, float b, float c) { return _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c))); }

float quantize(int8_t* out, const float* x, int64_t n, int32_t* sum) {
  float top = 0;
  __m256 most = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) most = _mm256_max_ps(absolute(_mm256_loadu_ps(x + i)), most);
  top = largest(most);
  for (; i < n; ++i) {
    const float v = x[i] < 0 ? -x[i] : x[i];
    if (v > top) top = v;
  }
  const bool usable = top > 1e-30f && top < 1e38f;
  const float inverse = usable ? 127 / top : 0;
  int32_t all = 0;
  for (i = 0; i < n; i += 8) {
    float part[8] = {};
    const int64_t count = n - i < 8 ? n - i : 8;
    __builtin_memcpy(part, x + i, size_t(count) * 4);
    const __m256 v = round(_mm256_loadu_ps(part) * _mm256_set1_ps(inverse));
    const __m256i q = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(v, _mm256_set1_ps(-127)), _mm256_set1_ps(127)));
    int32_t lane[8];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lane), q);
    for (int64_t j = 0; j < count; ++j) {
      out[i + j] = int8_t(lane[j]);
      all += lane[j];
    }
  }
  *sum = all;
  return usable ? top * (1.f / 127) : 0;
}

template <int rows>
INLINE void score_panel(const ScoreArgs& a, int64_t m, int64_t panel) {
  const auto* k = static_cast<const char*>(a.k);
  const char* line = k + panel * 16 * a.dims;
  const int8_t* q = a.q + m * a.ldq;
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum[rows][2];
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
  for (int64_t d = 0; d < a.dims; d += 4, line += 64, q += 4) {
    const __m256i k0 = load(line), k1 = load(line + 32), size0 = _mm256_abs_epi8(k0), size1 = _mm256_abs_epi8(k1);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      const __m256i four = four_bytes(q + r * a.ldq);
      sum[r][0] = _mm256_add_epi32(sum[r][0], _mm256_madd_epi16(_mm256_maddubs_epi16(size0, _mm256_sign_epi8(four, k0)), ones));
      sum[r][1] = _mm256_add_epi32(sum[r][1], _mm256_madd_epi16(_mm256_maddubs_epi16(size1, _mm256_sign_epi8(four, k1)), ones));
    }
  }
  const auto* k_scale = reinterpret_cast<const float*>(k + attend_rows * a.dims) + panel * 16;
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      float* scores = a.scores + (m + r) * attend_rows + panel * 16 + 8 * half;
      const __m256 value = _mm256_cvtepi32_ps(sum[r][half]), scale = _mm256_loadu_ps(k_scale + 8 * half) * _mm256_set1_ps(a.q_scale[m + r]);
      _mm256_storeu_ps(scores, a.add ? _mm256_fmadd_ps(value, scale, _mm256_loadu_ps(scores)) : value * scale);
    }
}

void score_page(const ScoreArgs& a) {
  for (int64_t panel = 0; panel < attend_rows / 16; ++panel) {
    int64_t m = 0;
    for (; m + 4 <= a.m; m += 4) score_panel<4>(a, m, panel);
    for (; m < a.m; ++m) score_panel<1>(a, m, panel);
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
  const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  __m256 p[8], most = _mm256_set1_ps(state.max);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const __m256i chosen = _mm256_and_si256(_mm256_set1_epi32(int(a.visible[m] >> 8 * i & 0xff)), bits);
    const __m256 seen = _mm256_castsi256_ps(_mm256_cmpeq_epi32(chosen, bits));
    p[i] = _mm256_blendv_ps(_mm256_set1_ps(-infinity), _mm256_loadu_ps(a.scores + m * attend_rows + 8 * i), seen);
    most = _mm256_max_ps(p[i], most);
  }
  const float max = largest(most);
  const __m256 base = _mm256_set1_ps(max == -infinity ? 0 : max);
  __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()}, top = _mm256_setzero_ps();
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    p[i] = exp_of(p[i] - base);
    sum[i % 2] = sum[i % 2] + p[i];
    p[i] = p[i] * _mm256_loadu_ps(a.v_scale + 8 * i);
    top = _mm256_max_ps(p[i], top);
  }
  const float of_page = largest(top);
  const bool usable = of_page > 1e-30f;
  const __m256 to_integer = _mm256_set1_ps(usable ? 255 / of_page : 0);
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    __m256i u[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m256 v = _mm256_fmadd_ps(p[i + j], to_integer, _mm256_loadu_ps(dither.row + 8 * (i + j)));
      u[j] = _mm256_cvttps_epi32(_mm256_min_ps(_mm256_max_ps(v, _mm256_setzero_ps()), _mm256_set1_ps(255)));
    }
    const __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(u[0], u[1]), _mm256_packs_epi32(u[2], u[3]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(a.p + m * attend_rows + 8 * i),
                        _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  }
  a.factor[m] = max == state.max ? 1 : exp_of(state.max - max);
  a.weight[m] = usable ? of_page * (1.f / 255) : 0;
  state.sum = fma_of(state.sum, a.factor[m], total(sum[0], sum[1]));
  state.max = max;
}

void softmax_page(const PageSoftmaxArgs& a) {
  for (int64_t m = 0; m < a.m; ++m)
    if (a.visible[m] != 0) softmax_row(a, m);
}

// Columns first .. first + 3. A lane of a line is 4 rows of them; bytes 0 and 1 of each column's four go to one vector of 16 bits, 2 and 3
// to another.
template <int rows>
INLINE void mix_columns(const MixPageArgs& a, int64_t m, int64_t first) {
  const __m256i turn = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15));
  __m256i sum[rows];
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) sum[r] = _mm256_setzero_si256();
#pragma GCC unroll 2
  for (int64_t part = 0; part < attend_rows / 8; ++part) {  // 8 rows, two lanes
    const char* line = static_cast<const char*>(a.v) + part / 2 * 16 * a.dims + first * 16 + part % 2 * 32;
    const __m256i turned = _mm256_shuffle_epi8(load(line), turn);  // per lane: rows 0, 1 of columns 0 .. 3, then rows 2, 3
    const __m256i sign = _mm256_cmpgt_epi8(_mm256_setzero_si256(), turned);
    const __m256i v01 = _mm256_unpacklo_epi8(turned, sign), v23 = _mm256_unpackhi_epi8(turned, sign);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      uint64_t eight;
      __builtin_memcpy(&eight, a.p + (m + r) * attend_rows + 8 * part, 8);
      const __m128i p = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(int64_t(eight)));          // rows 0 .. 7 as 16 bits
      const __m256i both = _mm256_permute4x64_epi64(_mm256_castsi128_si256(p), 0x50);  // rows 0 .. 3 in the low lane, 4 .. 7 in the high
      sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(v01, _mm256_shuffle_epi32(both, 0x00)));
      sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(v23, _mm256_shuffle_epi32(both, 0x55)));
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    if (a.visible[m + r] == 0) continue;
    float* out = a.out + (m + r) * a.ldout + first;
    const __m128 all = _mm_cvtepi32_ps(_mm_add_epi32(_mm256_castsi256_si128(sum[r]), _mm256_extracti128_si256(sum[r], 1)));
    _mm_storeu_ps(out, _mm_fmadd_ps(all, _mm_set1_ps(a.weight[m + r]), _mm_loadu_ps(out) * _mm_set1_ps(a.factor[m + r])));
  }
}

void mix_page(const MixPageArgs& a) {
  for (int64_t first = 0; first < a.dims; first += 4) {
    int64_t m = 0;
    for (; m + 4 <= a.m; m += 4) mix_columns<4>(a, m, first);
    for (; m < a.m; ++m) mix_columns<1>(a, m, first);
  }
}

void merge(float* out, SoftmaxState* state, const float* other, const SoftmaxState* other_state, int64_t n) {
  const float max = state->max > other_state->max ? state->max : other_state->max;
  if (max == -__builtin_inff()) return;
  const float mine = exp_of(state->max - max), theirs = exp_of(other_state->max - max);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(out + i,
                     _mm256_fmadd_ps(_mm256_loadu_ps(other + i), _mm256_set1_ps(theirs), _mm256_loadu_ps(out + i) * _mm256_set1_ps(mine)));
  for (; i < n; ++i) out[i] = fma_of(other[i], theirs, out[i] * mine);
  state->sum = fma_of(other_state->sum, theirs, state->sum * mine);
  state->max = max;
}

}  // namespace

void fill_avx2_attend(Kernels& k) {
  k.quantize = quantize;
  k.score_page = score_page;
  k.softmax_page = softmax_page;
  k.mix_page = mix_page;
  k.merge = merge;
}

}  // namespace hadal
