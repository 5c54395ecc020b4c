// What the training kernels need of a vector at the level avx512; included after vec.inc.h. A unit is 32 bits: a float, or two neighbours
// of bf16.

INLINE Vec broadcast(const char* unit) {
  int32_t bits;
  __builtin_memcpy(&bits, unit, 4);
  return _mm512_castsi512_ps(_mm512_set1_epi32(bits));
}
INLINE Vec low_half(Vec pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16)); }
INLINE Vec high_half(Vec pairs) { return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32(-0x10000))); }
INLINE Vec pair(Vec even, Vec odd) {  // of numbers that are bf16 already
  return _mm512_castsi512_ps(
      _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(_mm512_castps_si512(even), 16), _mm512_castps_si512(odd)));
}
// Rounded to nearest even.
#ifdef __AVX512BF16__
INLINE __m256i to_bf16(Vec v) { return __m256i(_mm512_cvtneps_pbh(v)); }
INLINE Vec rounded_pair(Vec even, Vec odd) {
  const __m512i both = __m512i(_mm512_cvtne2ps_pbh(odd, even));
  alignas(64) static constexpr uint16_t interleave[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                          8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_castsi512_ps(_mm512_permutexvar_epi16(_mm512_load_si512(interleave), both));
}
#else
INLINE Vec rounded(Vec v) {  // the upper half of each lane
  const __m512i u = _mm512_castps_si512(v), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  return _mm512_castsi512_ps(_mm512_mask_mov_epi32(up, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc00000)));
}
INLINE __m256i to_bf16(Vec v) { return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(rounded(v)), 16)); }
INLINE Vec rounded_pair(Vec even, Vec odd) { return pair(rounded(even), rounded(odd)); }
#endif
INLINE Vec where_bit(const uint32_t* words, uint32_t bit, Vec yes, Vec no) {
  return _mm512_mask_mov_ps(no, _mm512_test_epi32_mask(_mm512_loadu_si512(words), _mm512_set1_epi32(int32_t(bit))), yes);
}
INLINE Vec times_power(Vec v, Vec n) { return _mm512_scalef_ps(v, n); }  // v * 2^n; 0 far below
INLINE Vec exponent(Vec v) { return _mm512_getexp_ps(v); }               // v = mantissa * 2^exponent, mantissa in [1, 2)
INLINE Vec mantissa(Vec v) { return _mm512_getmant_ps(v, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero); }
INLINE void split(Vec a, Vec b, Vec* even, Vec* odd) {  // the elements of a, then of b
  const __m512i index = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  *even = _mm512_permutex2var_ps(a, index, b);
  *odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(index, _mm512_set1_epi32(1)), b);
}
INLINE void join(Vec* even, Vec* odd) {  // the inverse
  const __m512i index = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const Vec a = *even, b = *odd;
  *even = _mm512_permutex2var_ps(a, index, b);
  *odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(index, _mm512_set1_epi32(8)), b);
}

INLINE void transpose(Vec (&v)[width]) {
  Vec t[width];
#pragma GCC unroll 16
  for (int i = 0; i < width; i += 2) t[i] = _mm512_unpacklo_ps(v[i], v[i + 1]), t[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
#pragma GCC unroll 16
  for (int i = 0; i < width; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const __m512d a = _mm512_castps_pd(t[i + j]), b = _mm512_castps_pd(t[i + j + 2]);
      v[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      v[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
#pragma GCC unroll 16
  for (int i = 0; i < 4; ++i) {  // v[4 r + c]: column c of each 128-bit part, rows 4 r .. 4 r + 3
    const Vec a = _mm512_shuffle_f32x4(v[i], v[4 + i], 0x88), b = _mm512_shuffle_f32x4(v[8 + i], v[12 + i], 0x88);
    const Vec c = _mm512_shuffle_f32x4(v[i], v[4 + i], 0xdd), d = _mm512_shuffle_f32x4(v[8 + i], v[12 + i], 0xdd);
    t[i] = _mm512_shuffle_f32x4(a, b, 0x88), t[8 + i] = _mm512_shuffle_f32x4(a, b, 0xdd);
    t[4 + i] = _mm512_shuffle_f32x4(c, d, 0x88), t[12 + i] = _mm512_shuffle_f32x4(c, d, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < width; ++i) v[i] = t[i];
}
constexpr int product_rows = 6, product_vectors = 4;  // of a tile: 24 sums, 4 of b, one of a
