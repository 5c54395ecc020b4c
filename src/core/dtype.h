// How numbers are stored in files and in memory.
#pragma once
#include <bit>
#include <cstdint>
#include <string_view>

namespace hadal {

// The plain types, then the blocks of GGUF (reference: ggml's block_q* structures), a block being 32 or 256 values with their scales, then
// hadal's own packed weights, a block being 16 rows x 128 columns (core/packed.h).
// clang-format off
enum class DType : uint8_t {
  f32, f16, bf16, f8e4m3, i64, i32, i16, i8, u8, boolean,
  q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k,
  w8, w4, w3, w2
};
// clang-format on

struct DTypeInfo {
  std::string_view name;
  int64_t block_values, block_bytes;
};

constexpr DTypeInfo info_of(DType t) {
  constexpr DTypeInfo table[] = {
      {"F32", 1, 4},      {"F16", 1, 2},      {"BF16", 1, 2},     {"F8_E4M3", 1, 1},  {"I64", 1, 8},      {"I32", 1, 4},
      {"I16", 1, 2},      {"I8", 1, 1},       {"U8", 1, 1},       {"BOOL", 1, 1},     {"Q4_0", 32, 18},   {"Q4_1", 32, 20},
      {"Q5_0", 32, 22},   {"Q5_1", 32, 24},   {"Q8_0", 32, 34},   {"Q2_K", 256, 84},  {"Q3_K", 256, 110}, {"Q4_K", 256, 144},
      {"Q5_K", 256, 176}, {"Q6_K", 256, 210}, {"W8", 2048, 2048}, {"W4", 2048, 1088}, {"W3", 2048, 832},  {"W2", 2048, 576},
  };
  return table[int(t)];
}
constexpr std::string_view name_of(DType t) { return info_of(t).name; }
constexpr int64_t bytes_of(DType t, int64_t values) { return values / info_of(t).block_values * info_of(t).block_bytes; }

using bf16 = uint16_t;  // the upper half of a float
using f16 = uint16_t;   // IEEE binary16

constexpr float bf16_to_f32(bf16 v) { return std::bit_cast<float>(uint32_t(v) << 16); }
constexpr bf16 f32_to_bf16(float v) {  // round to nearest even; NaN stays NaN
  const uint32_t u = std::bit_cast<uint32_t>(v);
  if ((u & 0x7fffffff) > 0x7f800000) return bf16((u >> 16) | 0x40);
  return bf16((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
constexpr float f16_to_f32(f16 v) {
  const uint32_t sign = uint32_t(v & 0x8000) << 16, magnitude = v & 0x7fff;
  if (magnitude >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  // Shifted into place the exponent is short by 112; a product with 2^112 also normalises the subnormals.
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 13) * 0x1p112f));
}
constexpr f16 f32_to_f16(float v) {  // round to nearest even; beyond 65504 becomes infinity
  const uint32_t u = std::bit_cast<uint32_t>(v), sign = u >> 16 & 0x8000, magnitude = u & 0x7fffffff;
  if (magnitude > 0x7f800000) return f16(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return f16(sign | 0x7c00);
  if (magnitude < 0x38800000) {  // subnormal: let float addition round at 2^-24
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return f16(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000));
  }
  return f16(sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13));
}
// E4M3 "fn": bias 7, largest 448, 0x7f and 0xff are NaN, no infinity.
constexpr float f8e4m3_to_f32(uint8_t v) {
  const uint32_t sign = uint32_t(v & 0x80) << 24;
  if ((v & 0x7f) == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000);
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(uint32_t(v & 0x7f) << 20) * 0x1p120f));
}

}  // namespace hadal
