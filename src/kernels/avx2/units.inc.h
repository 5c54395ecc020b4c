// What the training kernels need of a vector at the level avx2; included after vec.inc.h. A unit is 32 bits: a float, or two neighbours of
// bf16.

INLINE Vec broadcast(const char* unit) {
  int32_t bits;
  __builtin_memcpy(&bits, unit, 4);
  return _mm256_castsi256_ps(_mm256_set1_epi32(bits));
}
INLINE Vec low_half(Vec pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pairs), 16)); }
INLINE Vec high_half(Vec pairs) { return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(pairs), _mm256_set1_epi32(-0x10000))); }
INLINE Vec pair(Vec even, Vec odd) {  // of numbers that are bf16 already
  return _mm256_castsi256_ps(_mm256_blend_epi16(_mm256_srli_epi32(_mm256_castps_si256(even), 16), _mm256_castps_si256(odd), 0xaa));
}
// Rounded to nearest even.
INLINE Vec rounded(Vec v) {  // the upper half of each lane
  const __m256i u = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  return _mm256_blendv_ps(_mm256_castsi256_ps(up), _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000)), _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
}
INLINE __m128i to_bf16(Vec v) {
  const __m256i u = _mm256_srli_epi32(_mm256_castps_si256(rounded(v)), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(u), _mm256_extracti128_si256(u, 1));
}
INLINE Vec rounded_pair(Vec even, Vec odd) { return pair(rounded(even), rounded(odd)); }
INLINE Vec where_bit(const uint32_t* words, uint32_t bit, Vec yes, Vec no) {
  const __m256i wanted = _mm256_set1_epi32(int32_t(bit));
  const __m256i found = _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(words)), wanted);
  return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(_mm256_cmpeq_epi32(found, wanted)));
}
INLINE Vec times_power(Vec v, Vec n) {  // v * 2^n for v about 1 and n up to 127; 0 far below
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(max(set(-127), n)), _mm256_set1_epi32(127));
  return v * _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
INLINE Vec exponent(Vec v) {  // v = mantissa * 2^exponent, mantissa in [1, 2)
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(_mm256_castps_si256(v), 23), _mm256_set1_epi32(127)));
}
INLINE Vec mantissa(Vec v) { return _mm256_or_ps(set(1), _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffff)))); }
INLINE void split(Vec a, Vec b, Vec* even, Vec* odd) {  // the elements of a, then of b
  const auto in_order = [](Vec v) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8)); };
  *even = in_order(_mm256_shuffle_ps(a, b, 0x88));
  *odd = in_order(_mm256_shuffle_ps(a, b, 0xdd));
}
INLINE void join(Vec* even, Vec* odd) {  // the inverse
  const Vec low = _mm256_unpacklo_ps(*even, *odd), high = _mm256_unpackhi_ps(*even, *odd);
  *even = _mm256_permute2f128_ps(low, high, 0x20);
  *odd = _mm256_permute2f128_ps(low, high, 0x31);
}

INLINE void transpose(Vec (&v)[width]) {
  Vec t[width];
#pragma GCC unroll 8
  for (int i = 0; i < width; i += 2) t[i] = _mm256_unpacklo_ps(v[i], v[i + 1]), t[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
#pragma GCC unroll 8
  for (int i = 0; i < width; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const __m256d a = _mm256_castps_pd(t[i + j]), b = _mm256_castps_pd(t[i + j + 2]);
      v[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
      v[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
    }
#pragma GCC unroll 8
  for (int i = 0; i < 4; ++i) {  // v[4 r + c]: column c of each 128-bit part, rows 4 r .. 4 r + 3
    t[i] = _mm256_permute2f128_ps(v[i], v[4 + i], 0x20);
    t[4 + i] = _mm256_permute2f128_ps(v[i], v[4 + i], 0x31);
  }
#pragma GCC unroll 8
  for (int i = 0; i < width; ++i) v[i] = t[i];
}
constexpr int product_rows = 6, product_vectors = 2;  // of a tile: 12 sums, 2 of b, one of a
