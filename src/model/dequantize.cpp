// Stored values as float, whatever their type. A block type is one function from a block's bytes to its values; the order of
// operations is ggml's (scale times quant, then the offset), so that values are the same to the last bit.
// Source of the layouts: ggml-common.h and gguf-py's quants.py.
#include <array>
#include <cstring>

#include "core/error.h"
#include "model/checkpoint.h"

namespace hadal {
namespace {

using Byte = uint8_t;

float half_at(const Byte* at) {
  f16 value;
  std::memcpy(&value, at, sizeof value);
  return f16_to_f32(value);
}

// 32 values, one half-precision scale. The first 16 values are the low nibbles.
void expand_q4_0(const Byte* b, float* out) {
  const float d = half_at(b);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * float((b[2 + i] & 15) - 8);
    out[16 + i] = d * float((b[2 + i] >> 4) - 8);
  }
}

void expand_q4_1(const Byte* b, float* out) {
  const float d = half_at(b), m = half_at(b + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * float(b[4 + i] & 15) + m;
    out[16 + i] = d * float(b[4 + i] >> 4) + m;
  }
}

// The fifth bits of the 32 values are one little-endian word.
struct FifthBits {
  uint32_t word;
  explicit FifthBits(const Byte* at) { std::memcpy(&word, at, sizeof word); }
  int of(int value) const { return int(word >> value & 1) << 4; }
};

void expand_q5_0(const Byte* b, float* out) {
  const float d = half_at(b);
  const FifthBits high(b + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * float(((b[6 + i] & 15) | high.of(i)) - 16);
    out[16 + i] = d * float(((b[6 + i] >> 4) | high.of(16 + i)) - 16);
  }
}

void expand_q5_1(const Byte* b, float* out) {
  const float d = half_at(b), m = half_at(b + 2);
  const FifthBits high(b + 4);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * float((b[8 + i] & 15) | high.of(i)) + m;
    out[16 + i] = d * float((b[8 + i] >> 4) | high.of(16 + i)) + m;
  }
}

void expand_q8_0(const Byte* b, float* out) {
  const float d = half_at(b);
  for (int i = 0; i < 32; ++i) out[i] = d * float(int8_t(b[2 + i]));
}

// 256 values in runs of 16: a byte of scale (low) and offset (high nibble) each, then two bits per value, then d and dmin.
void expand_q2_k(const Byte* b, float* out) {
  const Byte *scales = b, *quants = b + 16;
  const float d = half_at(b + 80), dmin = half_at(b + 82);
  for (int run = 0; run < 16; ++run) {
    const float scale = d * float(scales[run] & 15), offset = dmin * float(scales[run] >> 4);
    const Byte* q = quants + run / 8 * 32 + run % 2 * 16;
    const int shift = run % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i) out[16 * run + i] = scale * float(q[i] >> shift & 3) - offset;
  }
}

// 256 values in runs of 16: third bits (32 bytes, one bit plane per run of 32), two bits per value, 16 scales of 6 bits, d.
void expand_q3_k(const Byte* b, float* out) {
  const Byte *high = b, *quants = b + 32, *packed = b + 96;
  const float d = half_at(b + 108);
  for (int run = 0; run < 16; ++run) {
    const int low4 = packed[run % 8] >> (run / 8 * 4) & 15, high2 = packed[8 + run % 4] >> (run / 4 * 2) & 3;
    const float scale = d * float((low4 | high2 << 4) - 32);
    const Byte *q = quants + run / 8 * 32 + run % 2 * 16, *h = high + run % 2 * 16;
    const int shift = run % 8 / 2 * 2, plane = run / 2;
    for (int i = 0; i < 16; ++i) out[16 * run + i] = scale * float((q[i] >> shift & 3) - (h[i] >> plane & 1 ? 0 : 4));
  }
}

// Eight scales and eight offsets of 6 bits in 12 bytes, for runs of 32 values (q4_k, q5_k).
struct ScalesAndOffsets {
  std::array<float, 8> scale, offset;
  ScalesAndOffsets(const Byte* b) {
    const float d = half_at(b), dmin = half_at(b + 2);
    const Byte* p = b + 4;
    for (int i = 0; i < 4; ++i) {
      scale[size_t(i)] = d * float(p[i] & 63);
      offset[size_t(i)] = dmin * float(p[4 + i] & 63);
      scale[size_t(4 + i)] = d * float((p[8 + i] & 15) | p[i] >> 6 << 4);
      offset[size_t(4 + i)] = dmin * float(p[8 + i] >> 4 | p[4 + i] >> 6 << 4);
    }
  }
};

void expand_q4_k(const Byte* b, float* out) {
  const ScalesAndOffsets s(b);
  for (int run = 0; run < 8; ++run) {
    const float scale = s.scale[size_t(run)], offset = s.offset[size_t(run)];
    const Byte* q = b + 16 + run / 2 * 32;
    const int shift = run % 2 * 4;
    for (int i = 0; i < 32; ++i) out[32 * run + i] = scale * float(q[i] >> shift & 15) - offset;
  }
}

void expand_q5_k(const Byte* b, float* out) {
  const ScalesAndOffsets s(b);
  const Byte* high = b + 16;
  for (int run = 0; run < 8; ++run) {
    const float scale = s.scale[size_t(run)], offset = s.offset[size_t(run)];
    const Byte* q = b + 48 + run / 2 * 32;
    const int shift = run % 2 * 4;
    for (int i = 0; i < 32; ++i) out[32 * run + i] = scale * float((q[i] >> shift & 15) | (high[i] >> run & 1) << 4) - offset;
  }
}

// 256 values in runs of 16: low nibbles (two halves of 64 bytes), high two bits (two halves of 32), 16 signed scales, d.
void expand_q6_k(const Byte* b, float* out) {
  const float d = half_at(b + 208);
  for (int run = 0; run < 16; ++run) {
    const int half = run / 8, part = run / 2 % 4, right = run % 2 * 16;
    const Byte *low = b + half * 64 + part % 2 * 32 + right, *high = b + 128 + half * 32 + right;
    const float scale = d * float(int8_t(b[192 + run]));
    for (int i = 0; i < 16; ++i)
      out[16 * run + i] = scale * float(((low[i] >> (part / 2 * 4) & 15) | (high[i] >> (2 * part) & 3) << 4) - 32);
  }
}

template <auto expand, DType type>
void expand_blocks(const Byte* in, int64_t values, float* out) {
  constexpr DTypeInfo info = info_of(type);
  for (int64_t v = 0; v < values; v += info.block_values, in += info.block_bytes) expand(in, out + v);
}

template <class T>
float plain_to_f32(T value) {
  return float(value);
}

template <class T, auto convert>
void expand_plain(const Byte* in, int64_t values, float* out) {
  for (int64_t v = 0; v < values; ++v) {
    T value;
    std::memcpy(&value, in + size_t(v) * sizeof(T), sizeof(T));
    out[v] = convert(value);
  }
}

float f8_to_f32(uint8_t value) {
  static constexpr auto table = [] {
    std::array<float, 256> t{};
    for (int i = 0; i < 256; ++i) t[size_t(i)] = f8e4m3_to_f32(uint8_t(i));
    return t;
  }();
  return table[value];
}

using Expand = void (*)(const Byte*, int64_t, float*);
Expand expand_of(DType type) {
  switch (type) {
    case DType::f32:
      return expand_plain<float, plain_to_f32<float>>;
    case DType::f16:
      return expand_plain<f16, f16_to_f32>;
    case DType::bf16:
      return expand_plain<bf16, bf16_to_f32>;
    case DType::f8e4m3:
      return expand_plain<uint8_t, f8_to_f32>;
    case DType::i64:
      return expand_plain<int64_t, plain_to_f32<int64_t>>;
    case DType::i32:
      return expand_plain<int32_t, plain_to_f32<int32_t>>;
    case DType::i16:
      return expand_plain<int16_t, plain_to_f32<int16_t>>;
    case DType::i8:
      return expand_plain<int8_t, plain_to_f32<int8_t>>;
    case DType::u8:
    case DType::boolean:
      return expand_plain<uint8_t, plain_to_f32<uint8_t>>;
    case DType::q4_0:
      return expand_blocks<expand_q4_0, DType::q4_0>;
    case DType::q4_1:
      return expand_blocks<expand_q4_1, DType::q4_1>;
    case DType::q5_0:
      return expand_blocks<expand_q5_0, DType::q5_0>;
    case DType::q5_1:
      return expand_blocks<expand_q5_1, DType::q5_1>;
    case DType::q8_0:
      return expand_blocks<expand_q8_0, DType::q8_0>;
    case DType::q2_k:
      return expand_blocks<expand_q2_k, DType::q2_k>;
    case DType::q3_k:
      return expand_blocks<expand_q3_k, DType::q3_k>;
    case DType::q4_k:
      return expand_blocks<expand_q4_k, DType::q4_k>;
    case DType::q5_k:
      return expand_blocks<expand_q5_k, DType::q5_k>;
    case DType::q6_k:
      return expand_blocks<expand_q6_k, DType::q6_k>;
    case DType::w8:  // hadal's packed weights are no type of a file's tensors
    case DType::w4:
    case DType::w3:
    case DType::w2:
      break;
  }
  CHECK(false);
}

// A tensor whose strides are not those of its shape: values are gathered one by one, in the order of the shape.
void gather(const StoredTensor& t, Expand expand, int64_t first, int64_t count, float* out) {
  const size_t size = size_t(info_of(t.dtype).block_bytes);
  for (int64_t v = first; v < first + count; ++v, ++out) {
    int64_t at = 0, rest = v;
    for (size_t side = t.shape.size(); side-- > 0; rest /= t.shape[side]) at += rest % t.shape[side] * t.strides[side];
    expand(reinterpret_cast<const Byte*>(t.data) + size_t(at) * size, 1, out);
  }
}

}  // namespace

void to_f32(const StoredTensor& tensor, int64_t first, int64_t count, float* out) {
  const DTypeInfo info = info_of(tensor.dtype);
  CHECK(first >= 0 && count >= 0 && first <= tensor.count() - count);
  CHECK(first % info.block_values == 0 && count % info.block_values == 0);
  const Expand expand = expand_of(tensor.dtype);
  if (!tensor.strides.empty()) return gather(tensor, expand, first, count, out);
  expand(reinterpret_cast<const Byte*>(tensor.data) + bytes_of(tensor.dtype, first), count, out);
}

}  // namespace hadal
