// What measures the machine, and the table itself, for every vector level; included last.
// read_bytes: four streams far apart, whole cache lines, nothing but loads and xor: no kernel can read faster.
// fma_peak: enough independent chains in registers to hide the latency of a multiply-add on two ports; no loads at all.

uint64_t read_bytes(const void* data, int64_t bytes) {
  constexpr int64_t streams = 4, line = 64, loads = line / int64_t(sizeof(Bytes));
  const auto* at = static_cast<const char*>(data);
  const int64_t part = bytes / (streams * line) * line;  // of each stream, whole lines
  Bytes sum[streams * loads] = {};
  for (int64_t i = 0; i < part; i += line)
#pragma GCC unroll 8
    for (int s = 0; s < streams * loads; ++s) sum[s] ^= load_bytes(at + s / loads * part + i + s % loads * int64_t(sizeof(Bytes)));
  uint64_t all = 0;
  for (const Bytes& s : sum)
    for (size_t w = 0; w < sizeof(Bytes) / 8; ++w) all ^= uint64_t(s[w]);
  for (int64_t i = streams * part; i + 8 <= bytes; i += 8) {
    uint64_t word;
    __builtin_memcpy(&word, at + i, 8);
    all ^= word;
  }
  return all;
}

int64_t fma_peak(int64_t rounds) {
  Vec chain[fma_chains];
  for (Vec& c : chain) c = set(1);
  const Vec half = set(0.5f);
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 32
    for (int i = 0; i < fma_chains; ++i) chain[i] = fma(chain[i], half, half);
  asm volatile("" : : "r"(chain) : "memory");  // the result counts as used
  return rounds * fma_chains * width * 2;
}

INLINE void fill(Kernels& k) {
  k = {.name = k.name,
       .gemm_f32_f32 = gemm<F32>,
       .gemm_f32_bf16 = gemm<Bf16>,
       .gemm_f32_f16 = gemm<F16>,
       .mix_f32_f32 = mix<F32>,
       .mix_f32_f16 = mix<F16>,
       .rms_norm = rms_norm,
       .layer_norm = layer_norm,
       .silu_mul = silu_mul,
       .add = add,
       .add_scaled = add_scaled,
       .scale = scale,
       .softmax_block = softmax_block,
       .rope_halves = rope_halves,
       .rope_pairs = rope_pairs,
       .f16_from_f32 = f16_from_f32,
       .f32_from_bf16 = f32_from<Bf16>,
       .f32_from_f16 = f32_from<F16>,
       .rotate = rotate,
       .read_bytes = read_bytes,
       .fma_peak = fma_peak};
}
