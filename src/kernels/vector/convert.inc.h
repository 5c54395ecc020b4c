// Rotations and number formats for every vector level; included after rows.inc.h.
// Element by element, the same bits as the scalar level: products and sums are rounded apart, and conversions round to nearest even.
// Bound by the loads: at most 6 flops for 16 bytes.

void rope_halves(float* x, const float* cos, const float* sin, int64_t half) {
  each_vector(half, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
    const Vec a = lanes.load(x + i), b = lanes.load(x + half + i), c = lanes.load(cos + i), s = lanes.load(sin + i);
    lanes.store(x + i, a * c - b * s);
    lanes.store(x + half + i, b * c + a * s);
  });
}

void rope_pairs(float* x, const float* cos, const float* sin, int64_t half) {
  int64_t i = 0;
  for (; i + 4 <= half; i += 4) {
    const auto twice = [](const float* p) ALWAYS_INLINE {
      const __m128 v = _mm_loadu_ps(p);
      return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_unpacklo_ps(v, v)), _mm_unpackhi_ps(v, v), 1);
    };
    const __m256 v = _mm256_loadu_ps(x + 2 * i), swapped = _mm256_permute_ps(v, 0xb1);
    _mm256_storeu_ps(x + 2 * i, _mm256_addsub_ps(v * twice(cos + i), swapped * twice(sin + i)));
  }
  for (; i < half; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cos[i] - b * sin[i];
    x[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

void f16_from_f32(uint16_t* out, const float* x, int64_t n) {
  each_vector(n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
    // Saturated, not infinite; max and min pass a NaN on because it is their second operand.
    lanes.store16(out + i, to_f16(min(set(65504), max(set(-65504), lanes.load(x + i)))));
  });
}

template <class Format>
void f32_from(float* out, const uint16_t* x, int64_t n) {
  each_vector(n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE { lanes.store(out + i, Format::load(lanes, x + i)); });
}
