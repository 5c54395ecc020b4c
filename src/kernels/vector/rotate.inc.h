// The Walsh-Hadamard transform of runs of a row, for every vector level; included inside the anonymous namespace of a level, after its Vec.
// Stage s adds and subtracts elements i and i + 2^s, smallest first, as the scalar twin does. A run of up to 512 floats passes through
// registers once (nearly: 32 or 64 vectors): stages inside a vector exchange its lanes (a fused x * +-1 + y, which rounds like the sum),
// later ones add whole vectors. 9 stages: 13 operations for 64 bytes read and written.

template <int step>
INLINE Vec stage(Vec v) {
  return fma(v, signs<step>(), exchanged<step>(v));
}

INLINE Vec stages(Vec v, int64_t run) {  // those inside a vector
  if (run >= 2) v = stage<1>(v);
  if (run >= 4) v = stage<2>(v);
  if (run >= 8) v = stage<4>(v);
  if constexpr (width == 16)
    if (run >= 16) v = stage<8>(v);
  return v;
}

template <int vectors>
void rotate_run(float* x, Vec factor) {
  Vec v[vectors];
#pragma GCC unroll 64
  for (int i = 0; i < vectors; ++i) v[i] = stages(Whole{}.load(x + i * width), width);
#pragma GCC unroll 6
  for (int step = 1; step < vectors; step *= 2)
#pragma GCC unroll 64
    for (int i = 0; i < vectors; ++i) {
      if (i & step) continue;
      const Vec a = v[i], b = v[i + step];
      v[i] = a + b;
      v[i + step] = a - b;
    }
#pragma GCC unroll 64
  for (int i = 0; i < vectors; ++i) Whole{}.store(x + i * width, v[i] * factor);
}

void rotate(float* x, int64_t n, int64_t run) {
  if (run < 2) return;
  const Vec factor = set(1 / square_root(float(run)));
  if (run < width) {
    each_vector(n, [&](auto lanes, int64_t i, int) ALWAYS_INLINE { lanes.store(x + i, stages(lanes.load(x + i), run) * factor); });
    return;
  }
  const auto all = [&](auto one) ALWAYS_INLINE {
    for (int64_t i = 0; i < n; i += run) one(x + i, factor);
  };
  switch (run / width) {
    case 1:
      return all(rotate_run<1>);
    case 2:
      return all(rotate_run<2>);
    case 4:
      return all(rotate_run<4>);
    case 8:
      return all(rotate_run<8>);
    case 16:
      return all(rotate_run<16>);
    case 32:
      return all(rotate_run<32>);
    default:
      return all(rotate_run<512 / width>);
  }
}
