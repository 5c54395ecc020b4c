// How rows get into the order that products read, and memory for it; for every vector level, included after product.inc.h.

// Memory of a thread, handed out in parts; without memory it only counts.
struct Room {
  char* base;
  int64_t bytes = 0;
  INLINE explicit Room(void* scratch) : base(static_cast<char*>(scratch)) {}
  INLINE float* units(int64_t count) {
    const int64_t at = bytes;
    bytes += (count * 4 + 63) / 64 * 64;
    return base ? reinterpret_cast<float*>(base + at) : nullptr;
  }
};

INLINE Vec load_wide(Whole lanes, const float* p) { return lanes.load(p); }
INLINE Vec load_wide(Part lanes, const float* p) { return lanes.load(p); }
template <class Lanes>
INLINE Vec load_wide(Lanes lanes, const uint16_t* p) {
  return Bf16::load(lanes, p);
}
template <class Lanes>
INLINE void store_narrow(Lanes lanes, float* p, Vec v) {
  lanes.store(p, v);
}
template <class Lanes>
INLINE void store_narrow(Lanes lanes, uint16_t* p, Vec v) {
  lanes.store16(p, to_bf16(v));
}

// Rows of x as the right side of a product over its rows: units [units_of(rows)][padded(dim)], zeros behind the ends.
template <class Units>
void pack_rows(float* out, const typename Units::Value* x, int64_t stride, int64_t rows, int64_t dim, const int64_t* row = nullptr) {
  const int64_t columns = padded(dim);
  const auto at = [&](int64_t r) { return x + (row ? row[r] : r) * stride; };
  for (int64_t r = 0; r < rows; r += Units::values, out += columns) {
    for (int64_t i = dim / 16 * 16; i < columns; ++i) out[i] = 0;
    each_vector(dim, [&](auto lanes, int64_t i, int) ALWAYS_INLINE {
      Vec v = load_wide(lanes, at(r) + i);
      if constexpr (Units::values == 2) v = pair(v, r + 1 < rows ? load_wide(lanes, at(r + 1) + i) : set(0));
      lanes.store(out + i, v);
    });
  }
}

// Units [count][rows] of `rows` rows of `count` units as [count][ldout]; columns up to padded(rows) are written, the last ones zero.
void transpose_units(float* out, int64_t ldout, const char* x, int64_t stride, int64_t rows, int64_t count) {
  for (int64_t first = 0; first < padded(rows); first += width)
    for (int64_t i = 0; i < count; i += width) {
      Vec v[width];
      const Part lanes(count - i);
#pragma GCC unroll 16
      for (int r = 0; r < width; ++r)
        v[r] = first + r < rows ? lanes.load(reinterpret_cast<const float*>(x + (first + r) * stride) + i) : set(0);
      transpose(v);
#pragma GCC unroll 16
      for (int r = 0; r < width; ++r)
        if (i + r < count) Whole{}.store(out + (i + r) * ldout + first, v[r]);
    }
}

// Rows of x as the right side of a product over its columns: units [units_of(dim)][64], up to 64 rows.
template <class Units>
void pack_columns(float* out, const typename Units::Value* x, int64_t stride, int64_t rows, int64_t dim) {
  transpose_units(out, 64, reinterpret_cast<const char*>(x), stride * int64_t(sizeof(*x)), rows, dim / Units::values);
  if (dim % Units::values == 0) return;
  float* last = out + dim / Units::values * 64;  // a pair of which there is only one
  for (int64_t r = 0; r < padded(rows); ++r) {
    last[r] = 0;
    if (r < rows) __builtin_memcpy(last + r, x + r * stride + dim - 1, sizeof(*x));
  }
}
