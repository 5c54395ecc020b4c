// What a vector is at the level avx512; included inside the anonymous namespace of each of its objects.

#define ALWAYS_INLINE __attribute__((always_inline))  // where `inline` may not stand, as in a lambda
#define INLINE ALWAYS_INLINE inline

using Vec = __m512;
constexpr int width = 16, parts = 1;                                  // a sum of 16 is `parts` vectors
constexpr int tile_m = 6, tile_n = 4, stream_n = 4, fma_chains = 24;  // stream_n: rows of b read together when a has one row
constexpr int mix_m = 4, mix_vectors = 4;

INLINE Vec set(float v) { return _mm512_set1_ps(v); }
INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }  // b when one of them is NaN
INLINE Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
INLINE Vec round(Vec v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

// v * 2^n for integral n in [-252, 254], in two steps so that results below the normal range are rounded once.
INLINE Vec scale_by_power(Vec v, Vec n) {
  const __m512i whole = _mm512_cvtps_epi32(n), half = _mm512_srai_epi32(whole, 1), bias = _mm512_set1_epi32(127);
  const auto power = [&](__m512i e) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(e, bias), 23)); };
  return v * power(half) * power(_mm512_sub_epi32(whole, half));
}

struct Whole {  // all lanes of a vector
  INLINE Vec load(const float* p) const { return _mm512_loadu_ps(p); }
  INLINE Vec load(const float* p, float) const { return _mm512_loadu_ps(p); }
  INLINE void store(float* p, Vec v) const { _mm512_storeu_ps(p, v); }
  INLINE Vec keep(Vec v) const { return v; }
  INLINE Vec keep(Vec v, Vec) const { return v; }
  INLINE __m256i load16(const uint16_t* p) const { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  INLINE void store16(uint16_t* p, __m256i v) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
};

struct Part {  // the first `count` lanes; the others load as zero (or `other`) and are not stored
  __mmask16 live;
  INLINE explicit Part(int64_t count) : live(count >= width ? 0xffff : __mmask16((1u << count) - 1)) {}
  INLINE Vec load(const float* p) const { return _mm512_maskz_loadu_ps(live, p); }
  INLINE Vec load(const float* p, float other) const { return _mm512_mask_loadu_ps(set(other), live, p); }
  INLINE void store(float* p, Vec v) const { _mm512_mask_storeu_ps(p, live, v); }
  INLINE Vec keep(Vec v) const { return _mm512_maskz_mov_ps(live, v); }
  INLINE Vec keep(Vec v, Vec other) const { return _mm512_mask_mov_ps(other, live, v); }
  INLINE __m256i load16(const uint16_t* p) const { return _mm256_maskz_loadu_epi16(live, p); }
  INLINE void store16(uint16_t* p, __m256i v) const { _mm256_mask_storeu_epi16(p, live, v); }
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
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(lanes.load16(p)), 16));
  }
};
struct F16 {
  using Value = uint16_t;
  template <class Lanes>
  INLINE static Vec load(Lanes lanes, const uint16_t* p) {
    return _mm512_cvtph_ps(lanes.load16(p));
  }
};

INLINE __m256i to_f16(Vec v) { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

// The last steps of every sum: 8 + 8 and 4 + 4 lanes here, 2 + 2 and 1 + 1 in total() and totals().
INLINE __m128 four_of(const Vec (&sum)[parts]) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(sum[0]), _mm512_extractf32x8_ps(sum[0], 1));
  return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
}
INLINE float largest(Vec v) { return _mm512_reduce_max_ps(v); }

INLINE __m512i load_bytes(const char* p) { return _mm512_loadu_si512(p); }
using Bytes = __m512i;
