// Attention over int8 pages with AVX-512 VNNI. A line of a part is 16 rows x 4 columns, 64 bytes.
// Scores: a line is 16 keys in 16 lanes; vpdpbusd multiplies it with 4 columns of one query in every lane. Keys are made unsigned by
// adding 128, which adds 128 * q_sum to each dot product. Tile: 32 keys x 8 queries or 64 x 4, 16 sums; 64 bytes feed 8 x 64 products.
// Values, few rows: a byte shuffle in each 128-bit lane turns 4 rows x 4 columns round, so a lane holds the 4 rows of each of 4 columns,
// to be multiplied with the 4 rows' probabilities; a lane's sums are of 4 rows, added over the lanes at the page's end.
// Values, many rows: the page is turned once more, into lines of 4 rows x 16 columns. Tile: 4 rows of p x 64 columns, 16 sums.
#include <immintrin.h>

#include "kernels/kernels.h"

namespace hadal {
namespace {

#define INLINE __attribute__((always_inline)) inline

INLINE void fetch_line(const char* p) { _mm_prefetch(p, _MM_HINT_T0); }
// sum += a * b over each four bytes, a unsigned. Written out because GCC 12 copies every sum around its own intrinsic.
INLINE __m512i multiply_add(__m512i sum, __m512i a, __m512i b) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}
INLINE __m512i four_bytes(const void* p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}
INLINE __m512i load(const void* p) { return _mm512_loadu_si512(p); }

// The same bits as vector/rows.inc.h's exp for x <= 0: scalef rounds once, as the two products there do.
INLINE __m512 exp_of(__m512 x) {
  constexpr double ln2 = 0x1.62e42fefa39efp-1;
  constexpr float upper = 0x1.62e4p-1f, lower = float(ln2 - upper);
  x = _mm512_max_ps(_mm512_set1_ps(-104.5f), x);
  const __m512 n = _mm512_roundscale_ps(x * _mm512_set1_ps(float(1 / ln2)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-lower), _mm512_fmadd_ps(n, _mm512_set1_ps(-upper), x));
  constexpr float taylor[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  __m512 sum = _mm512_set1_ps(1.0f / 5040);
#pragma GCC unroll 8
  for (const float t : taylor) sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(t));
  return _mm512_scalef_ps(sum, n);
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

// `rows` queries against `panels` panels of 16 keys, from `panel` on.
template <int rows, int panels, bool fetch>
INLINE void score_tile(const ScoreArgs& a, int64_t m, int64_t panel) {
  const auto* k = static_cast<const char*>(a.k);
  const int64_t panel_bytes = 16 * a.dims, ldq = a.ldq;
  const char *line = k + panel * panel_bytes, *next = static_cast<const char*>(a.next) + panel * panel_bytes;
  const int8_t* q = a.q + m * ldq;
  const __m512i bias = _mm512_set1_epi8(char(0x80));
  __m512i sum[rows][panels];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int p = 0; p < panels; ++p) sum[r][p] = _mm512_setzero_si512();
  for (int64_t left = a.dims; left > 0; left -= 4, q += 4, line += 64, next += 64) {
    __m512i keys[panels];
#pragma GCC unroll 4
    for (int p = 0; p < panels; ++p) {
      if (fetch) fetch_line(next + p * panel_bytes);
      keys[p] = _mm512_xor_si512(load(line + p * panel_bytes), bias);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const __m512i four = four_bytes(q + r * ldq);
#pragma GCC unroll 4
      for (int p = 0; p < panels; ++p) sum[r][p] = multiply_add(sum[r][p], keys[p], four);
    }
  }

  const auto* k_scale = reinterpret_cast<const float*>(k + attend_rows * a.dims) + panel * 16;
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int p = 0; p < panels; ++p) {
      const __m512i dot = _mm512_sub_epi32(sum[r][p], _mm512_set1_epi32(128 * a.q_sum[m + r]));
      float* scores = a.scores + (m + r) * attend_rows + (panel + p) * 16;
      const __m512 value = _mm512_cvtepi32_ps(dot), scale = _mm512_loadu_ps(k_scale + p * 16) * _mm512_set1_ps(a.q_scale[m + r]);
      _mm512_storeu_ps(scores, a.add ? _mm512_fmadd_ps(value, scale, _mm512_loadu_ps(scores)) : value * scale);
    }
}

template <int rows, int panels>
INLINE void score_rows(const ScoreArgs& a, int64_t m, bool fetch) {
  for (int64_t panel = 0; panel < attend_rows / 16; panel += panels)
    fetch ? score_tile<rows, panels, true>(a, m, panel) : score_tile<rows, panels, false>(a, m, panel);
}

void score_page(const ScoreArgs& a) {
  const bool fetch = a.next != nullptr;
  if (fetch)
    for (int64_t i = 0; i < attend_rows * 4; i += 64) fetch_line(static_cast<const char*>(a.next) + attend_rows * a.dims + i);
  int64_t m = 0;
  for (; m + 8 <= a.m; m += 8) score_rows<8, 2>(a, m, fetch && m == 0);
  if (m + 4 <= a.m) score_rows<4, 4>(a, m, fetch && m == 0), m += 4;
  if (m + 2 <= a.m) score_rows<2, 4>(a, m, fetch && m == 0), m += 2;
  if (m < a.m) score_rows<1, 4>(a, m, fetch && m == 0);
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

// The largest visible score of a row, or what it was before.
INLINE float new_max(const PageSoftmaxArgs& a, int64_t m) {
  __m512 most = _mm512_set1_ps(a.state[m].max);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    most = _mm512_mask_max_ps(most, __mmask16(a.visible[m] >> 16 * i), _mm512_loadu_ps(a.scores + m * attend_rows + 16 * i), most);
  return _mm512_reduce_max_ps(most);
}

// Writes p and weight; returns the sum of the probabilities.
INLINE float softmax_row(const PageSoftmaxArgs& a, int64_t m, float max) {
  const __m512 masked = _mm512_set1_ps(-__builtin_inff()), base = _mm512_set1_ps(max == -__builtin_inff() ? 0 : max);
  __m512 p[4], sum = _mm512_setzero_ps(), largest = _mm512_setzero_ps();
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512 score = _mm512_loadu_ps(a.scores + m * attend_rows + 16 * i);
    p[i] = exp_of(_mm512_mask_sub_ps(masked, __mmask16(a.visible[m] >> 16 * i), score, base));
    sum = sum + p[i];
    p[i] = p[i] * _mm512_loadu_ps(a.v_scale + 16 * i);
    largest = _mm512_max_ps(p[i], largest);
  }
  const float top = _mm512_reduce_max_ps(largest);
  const bool usable = top > 1e-30f;
  const __m512 to_integer = _mm512_set1_ps(usable ? 255 / top : 0);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512 v = _mm512_max_ps(_mm512_fmadd_ps(p[i], to_integer, _mm512_loadu_ps(dither.row + 16 * i)), _mm512_setzero_ps());
    _mm_storeu_si128(reinterpret_cast<__m128i*>(a.p + m * attend_rows + 16 * i), _mm512_cvtusepi32_epi8(_mm512_cvttps_epi32(v)));
  }
  a.weight[m] = usable ? top * (1.f / 255) : 0;
  return total(sum);
}

void softmax_page(const PageSoftmaxArgs& a) {
  for (int64_t first = 0; first < a.m; first += 16) {
    const int64_t count = a.m - first < 16 ? a.m - first : 16;
    float before[16], max[16], factor[16];
    for (int64_t i = 0; i < count; ++i) {
      before[i] = a.state[first + i].max;
      max[i] = new_max(a, first + i);
    }
    const __mmask16 live = first_lanes(count);
    const __m512 old_max = _mm512_maskz_loadu_ps(live, before), top = _mm512_maskz_loadu_ps(live, max);
    const __mmask16 moved = _mm512_mask_cmp_ps_mask(live, old_max, top, _CMP_NEQ_UQ);
    _mm512_storeu_ps(factor, _mm512_mask_mov_ps(_mm512_set1_ps(1), moved, exp_of(old_max - top)));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t m = first + i;
      if (a.visible[m] == 0) continue;
      const float sum = softmax_row(a, m, max[i]);
      SoftmaxState& state = a.state[m];
      a.factor[m] = factor[i];
      state.sum = _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(state.sum), _mm_set_ss(factor[i]), _mm_set_ss(sum)));
      state.max = max[i];
    }
  }
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
      for (int i = 0; i < 4; ++i) sum[r][i] = multiply_add(sum[r][i], weights, values[i]);
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
  for (; first + 16 <= a.dims; first += 16) {
    if (m == 0 && a.next)
      for (int64_t panel = 0; panel < 4; ++panel)
        for (int64_t i = 0; i < 4; ++i) fetch_line(static_cast<const char*>(a.next) + (panel * a.dims + first) * 16 + i * 64);
    mix_columns<rows, true>(a, m, first, 4);
  }
  if (first < a.dims) mix_columns<rows, false>(a, m, first, int(a.dims - first) / 4);
}

// Many rows of p: the values of 16 * vectors columns are turned once, into lines of 4 rows x 16 columns, whose sums need no adding up.
constexpr int most_vectors = 4;
struct Turned {
  __m512i line[attend_rows / 4][most_vectors];
};

template <int vectors>
INLINE void turn(const MixPageArgs& a, int64_t first, Turned& to) {
  const __m512i turn = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  for (int64_t panel = 0; panel < attend_rows / 16; ++panel)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      const char* from = static_cast<const char*>(a.v) + (panel * a.dims + first + 16 * v) * 16;
      __m512i x[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        x[i] = first + 16 * v + 4 * i < a.dims ? _mm512_shuffle_epi8(load(from + 64 * i), turn) : _mm512_setzero_si512();
      const __m512i low01 = _mm512_shuffle_i32x4(x[0], x[1], 0x44), high01 = _mm512_shuffle_i32x4(x[0], x[1], 0xee);
      const __m512i low23 = _mm512_shuffle_i32x4(x[2], x[3], 0x44), high23 = _mm512_shuffle_i32x4(x[2], x[3], 0xee);
      to.line[4 * panel][v] = _mm512_shuffle_i32x4(low01, low23, 0x88);
      to.line[4 * panel + 1][v] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
      to.line[4 * panel + 2][v] = _mm512_shuffle_i32x4(high01, high23, 0x88);
      to.line[4 * panel + 3][v] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
    }
}

template <int rows, int vectors>
INLINE void mix_turned(const MixPageArgs& a, int64_t m, int64_t first, const Turned& values) {
  __m512i sum[rows][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sum[r][v] = _mm512_setzero_si512();
  const uint8_t* p = a.p + m * attend_rows;
  for (const auto& line : values.line) {
    __m512i value[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) value[v] = line[v];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const __m512i four = four_bytes(p + r * attend_rows);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sum[r][v] = multiply_add(sum[r][v], four, value[v]);
    }
    p += 4;
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
    if (a.visible[m + r] == 0) continue;
    const __m512 weight = _mm512_set1_ps(a.weight[m + r]), factor = _mm512_set1_ps(a.factor[m + r]);
    float* out = a.out + (m + r) * a.ldout + first;
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v)
      _mm512_storeu_ps(out + 16 * v, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][v]), weight, _mm512_loadu_ps(out + 16 * v) * factor));
  }
}

template <int vectors>
INLINE void mix_many(const MixPageArgs& a, int64_t first) {
  Turned values;
  turn<vectors>(a, first, values);
  int64_t m = 0;
  for (; m + 4 <= a.m; m += 4) mix_turned<4, vectors>(a, m, first, values);
  for (; m < a.m; ++m) mix_turned<1, vectors>(a, m, first, values);
}

void mix_page(const MixPageArgs& a) {
  if (a.m >= 8) {
    int64_t first = 0;
    for (; first + 16 * most_vectors <= a.dims; first += 16 * most_vectors) mix_many<most_vectors>(a, first);
    for (; first < a.dims; first += 16) mix_many<1>(a, first);
    return;
  }
  int64_t m = 0;
  for (; m + 4 <= a.m; m += 4) mix_rows<4>(a, m);
  if (m + 2 <= a.m) mix_rows<2>(a, m), m += 2;
  if (m < a.m) mix_rows<1>(a, m);
}

// Sums over the negative rows only, 2 x 32 of 16 bits, widened every 256 columns: 256 x 127 fits.
float best_in_sketch(const int8_t* q, const void* sketch, int64_t dims, uint64_t visible) {
  const auto* negative = static_cast<const uint64_t*>(sketch);
  const auto* size = reinterpret_cast<const float*>(negative + dims);
  __m512i sum[4] = {};
  int32_t all = 0;
  for (int64_t first = 0; first < dims; first += 256) {
    const int64_t end = first + 256 < dims ? first + 256 : dims;
    __m512i low = _mm512_setzero_si512(), high = _mm512_setzero_si512();
    for (int64_t d = first; d < end; ++d) {
      const __m512i value = _mm512_set1_epi16(q[d]);
      low = _mm512_mask_add_epi16(low, __mmask32(negative[d]), low, value);
      high = _mm512_mask_add_epi16(high, __mmask32(negative[d] >> 32), high, value);
      all += q[d];
    }
    const auto widen = [](__m512i v, int half) {
      return _mm512_cvtepi16_epi32(half ? _mm512_extracti64x4_epi64(v, 1) : _mm512_castsi512_si256(v));
    };
    sum[0] = _mm512_add_epi32(sum[0], widen(low, 0));
    sum[1] = _mm512_add_epi32(sum[1], widen(low, 1));
    sum[2] = _mm512_add_epi32(sum[2], widen(high, 0));
    sum[3] = _mm512_add_epi32(sum[3], widen(high, 1));
  }
  __m512 best = _mm512_set1_ps(-__builtin_inff());
  for (int i = 0; i < 4; ++i) {
    const __m512i dot = _mm512_sub_epi32(_mm512_set1_epi32(all), _mm512_slli_epi32(sum[i], 1));
    const __m512 score = _mm512_cvtepi32_ps(dot) * _mm512_loadu_ps(size + 16 * i);
    best = _mm512_mask_max_ps(best, __mmask16(visible >> 16 * i), score, best);
  }
  return _mm512_reduce_max_ps(best);
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
  k.best_in_sketch = best_in_sketch;
  k.merge = merge;
}

}  // namespace hadal
