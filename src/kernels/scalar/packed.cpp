// The specification of products with packed weights: the integers of one panel are unpacked as core/packed.h describes them, then
// multiplied. Everything up to the last two factors is exact, so the order of additions is free and every level gives the same bits.
// Bytes per flop: the weights once per call, unpacked into 2048 bytes of scratch per block.
#include <algorithm>
#include <cmath>

#include "kernels/kernels.h"

namespace hadal {
namespace {

constexpr int64_t rows = 16, cols = 128;

struct W8 {
  static constexpr int64_t block_bytes = 2048;
  static int8_t integer(const uint8_t* block, int64_t c, int64_t k) { return int8_t(block[k / 4 * 64 + c * 4 + k % 4]); }
};

int8_t integer_of(int code, uint8_t group, int shift) {
  const int scale = group & 15, zero = group >> 4;
  return int8_t(code * scale - (scale * (zero + 9) >> shift));
}

struct W4 {
  static constexpr int64_t block_bytes = 1088;
  static int8_t integer(const uint8_t* block, int64_t c, int64_t k) {
    const int64_t half = k / 64, r = k % 64 / 4;
    return integer_of(block[r * 64 + c * 4 + k % 4] >> (4 * half) & 15, block[1024 + k / 32 * 16 + c], 1);
  }
};

template <bool third_bit>
struct Narrow {  // w2, and w3 with its plane of third bits
  static constexpr int64_t block_bytes = third_bit ? 832 : 576;
  static int8_t integer(const uint8_t* block, int64_t c, int64_t k) {
    const int64_t g = k / 32, r = k % 32 / 4, byte = c * 4 + k % 4;
    int code = block[r * 64 + byte] >> (2 * g) & 3;
    if (third_bit) code |= (block[512 + r / 2 * 64 + byte] >> (r % 2 * 4 + g) & 1) << 2;
    return integer_of(code, block[block_bytes - 64 + g * 16 + c], third_bit ? 2 : 3);
  }
};

template <class Format>
void gemm(const PackedArgs& g) {
  auto* integers = static_cast<int8_t*>(g.scratch);  // [rows, all columns] of one panel
  const int64_t all = g.k_blocks * cols;
  for (int64_t first = 0; first < g.n; first += rows) {
    const auto* panel = static_cast<const uint8_t*>(g.w) + first / rows * g.k_blocks * Format::block_bytes;
    const int64_t count = std::min(rows, g.n - first);
    for (int64_t c = 0; c < count; ++c)
      for (int64_t k = 0; k < all; ++k) integers[c * all + k] = Format::integer(panel + k / cols * Format::block_bytes, c, k % cols);
    for (int64_t m = 0; m < g.m; ++m)
      for (int64_t c = 0; c < count; ++c) {
        int32_t sum = 0;
        for (int64_t k = 0; k < all; ++k) sum += g.a[m * g.lda + k] * integers[c * all + k];
        g.c[m * g.ldc + first + c] = float(sum - 128 * g.w_sum[first + c]) * g.w_scale[first + c] * g.a_scale[m];
      }
  }
}

void rotate(float* x, int64_t n, int64_t run) {
  const float factor = 1 / std::sqrt(float(run));
  for (float* end = x + n; run > 1 && x < end; x += run) {
    for (int64_t step = 1; step < run; step *= 2)
      for (int64_t i = 0; i < run; ++i) {
        if (i & step) continue;
        const float a = x[i], b = x[i + step];
        x[i] = a + b;
        x[i + step] = a - b;
      }
    for (int64_t i = 0; i < run; ++i) x[i] *= factor;
  }
}

float u8_from_f32(uint8_t* out, const float* x, int64_t n, int64_t padded) {
  float most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::abs(x[i]));  // which passes over a NaN
  const bool usable = most > 1e-30f && most < 1e38f;
  const float inverse = usable ? 127 / most : 0;
  for (int64_t i = 0; i < n; ++i) {
    const float v = std::nearbyint(x[i] * inverse);
    out[i] = uint8_t(128 + int(v >= -127 ? std::min(v, 127.f) : -127.f));  // a NaN becomes the least
  }
  std::fill(out + n, out + padded, uint8_t(128));
  return usable ? most * (1.f / 127) : 0;
}

int64_t integer_peak(int64_t rounds) {
  uint32_t chain[16] = {};
  for (int64_t r = 0; r < rounds; ++r)
    for (uint32_t& c : chain) c = c * 3 + 1;
  asm volatile("" : : "r"(chain) : "memory");  // the result counts as used
  return rounds * 16 * 2;
}

}  // namespace

void fill_scalar_packed(Kernels& k) {
  k.gemm_u8_w8 = gemm<W8>;
  k.gemm_u8_w4 = gemm<W4>;
  k.gemm_u8_w3 = gemm<Narrow<true>>;
  k.gemm_u8_w2 = gemm<Narrow<false>>;
  k.rotate = rotate;
  k.u8_from_f32 = u8_from_f32;
  k.integer_peak = integer_peak;
}

}  // namespace hadal
