// What a vector is at the level avx2; included inside the anonymous namespace of each of its objects.

#define ALWAYS_INLINE __attribute__((always_inline))  // where `inline` may not stand, as in a lambda
#define INLINE ALWAYS_INLINE inline

using Vec = __m256;
constexpr int width = 8, parts = 2;                                   // a sum of 16 is `parts` vectors
constexpr int tile_m = 3, tile_n = 2, stream_n = 4, fma_chains = 12;  // stream_n: rows of b read together when a has one row
constexpr int mix_m = 4, mix_vectors = 2;

INLINE Vec set(float v) { return _mm256_set1_ps(v); }
INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }  // b when one of them is NaN
INLINE Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
INLINE Vec round(Vec v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

// v * 2^n for integral n in [-252, 254], in two steps so that results below the normal range are rounded once.
INLINE Vec scale_by_power(Vec v, Vec n) {
  const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
  const auto power = [&](__m256i e) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, bias), 23)); };
  return v * power(half) * power(_mm256_sub_epi32(whole, half));
}

struct Whole {  // all lanes of a vector
  INLINE Vec load(const float* p) const { return _mm256_loadu_ps(p); }
  INLINE Vec load(const float* p, float) const { return _mm256_loadu_ps(p); }
  INLINE void store(float* p, Vec v) const { _mm256_storeu_ps(p, v); }
  INLINE Vec keep(Vec v) const { return v; }
  INLINE Vec keep(Vec v, Vec) const { return v; }
  INLINE __m128i load16(const uint16_t* p) const { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
  INLINE void store16(uint16_t* p, __m128i v) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v); }
};

alignas(64) constexpr int32_t live_lanes[16] = {-1, -1, -1, -1, -1, -1, -1, -1};

struct Part {  // the first `count` lanes; the others load as zero (or `other`) and are not stored
  int count;
  __m256i live;
  INLINE explicit Part(int64_t n)
      : count(n >= width ? width
              : n <= 0   ? 0
                         : int(n)),
        live(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(live_lanes + width - count))) {}
  INLINE Vec load(const float* p) const { return _mm256_maskload_ps(p, live); }
  INLINE Vec load(const float* p, float other) const { return _mm256_blendv_ps(set(other), load(p), _mm256_castsi256_ps(live)); }
  INLINE void store(float* p, Vec v) const { _mm256_maskstore_ps(p, live, v); }
  INLINE Vec keep(Vec v) const { return _mm256_and_ps(v, _mm256_castsi256_ps(live)); }
  INLINE Vec keep(Vec v, Vec other) const { return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(live)); }
  INLINE __m128i load16(const uint16_t* p) const {  // there is no masked load of 16-bit values
    alignas(16) uint16_t values[width] = {};
    for (int i = 0; i < count; ++i) values[i] = p[i];
    return _mm_load_si128(reinterpret_cast<const __m128i*>(values));
  }
  INLINE void store16(uint16_t* p, __m128i v) const {
    alignas(16) uint16_t values[width];
    _mm_store_si128(reinterpret_cast<__m128i*>(values), v);
    for (int i = 0; i < count; ++i) p[i] = values[i];
  }
};

struct F32 {
  using Value = float;
  template <class Lanes>
  INLINE static Vec load(Lanes lanes, const float* p) {
    return lanes.load(p);
  }
};
struct Bf16 {
  using Value = uint16_t;
  template <class Lanes>
  INLINE static Vec load(Lanes lanes, const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(lanes.load16(p)), 16));
  }
};
struct F16 {
  using Value = uint16_t;
  template <class Lanes>
  INLINE static Vec load(Lanes lanes, const uint16_t* p) {
    return _mm256_cvtph_ps(lanes.load16(p));
  }
};

INLINE __m128i to_f16(Vec v) { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

// The last steps of every sum: 8 + 8 and 4 + 4 lanes here, 2 + 2 and 1 + 1 in total() and totals().
INLINE __m128 four_of(const Vec (&sum)[parts]) {
  const __m256 eight = _mm256_add_ps(sum[0], sum[1]);
  return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
}
INLINE float largest(Vec v) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

INLINE __m256i load_bytes(const char* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
using Bytes = __m256i;
