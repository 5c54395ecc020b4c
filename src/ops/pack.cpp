// The layout of core/packed.h, one row at a time: within a block of 16 rows every byte belongs to a single row.
#include "ops/pack.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/kernels.h"

namespace hadal {
namespace {

constexpr int64_t line = 64;

// Where the bytes of row c of a block stand: byte j of line r.
template <class Byte>
struct BlockRow {
  Byte* first;
  Byte& at(int64_t r, int64_t j) const { return first[r * line + j]; }
};

int64_t group_line(DType type) { return type == DType::w4 ? 16 : type == DType::w3 ? 12 : 8; }

// Codes of 128 columns to bytes.
void put_block(DType type, const uint8_t* code, const BlockRow<std::byte>& to) {
  const auto bits = [&](int64_t k) { return unsigned(code[k]); };
  for (int64_t j = 0; j < 4; ++j) {
    if (type == DType::w8)
      for (int64_t r = 0; r < 32; ++r) to.at(r, j) = std::byte(code[4 * r + j]);
    if (type == DType::w4)
      for (int64_t r = 0; r < 16; ++r) to.at(r, j) = std::byte(bits(4 * r + j) | bits(64 + 4 * r + j) << 4);
    if (type != DType::w3 && type != DType::w2) continue;
    for (int64_t r = 0; r < 8; ++r) {
      unsigned low = 0;
      for (int64_t g = 0; g < 4; ++g) low |= (bits(32 * g + 4 * r + j) & 3) << 2 * g;
      to.at(r, j) = std::byte(low);
    }
    if (type == DType::w2) continue;
    for (int64_t pair = 0; pair < 4; ++pair) {
      unsigned high = 0;
      for (int64_t odd = 0; odd < 2; ++odd)
        for (int64_t g = 0; g < 4; ++g) high |= (bits(32 * g + 4 * (2 * pair + odd) + j) >> 2 & 1) << (4 * odd + g);
      to.at(8 + pair, j) = std::byte(high);
    }
  }
}

void take_block(DType type, const BlockRow<const std::byte>& from, uint8_t* code) {
  const auto bits = [&](int64_t r, int64_t j) { return unsigned(from.at(r, j)); };
  for (int64_t k = 0; k < block_cols; ++k) {
    const int64_t j = k % 4, g = k / 32, r = k % 32 / 4;
    if (type == DType::w8) code[k] = uint8_t(bits(k / 4, j));
    if (type == DType::w4) code[k] = uint8_t(bits(k % 64 / 4, j) >> 4 * (k / 64) & 15);
    if (type == DType::w3 || type == DType::w2) code[k] = uint8_t(bits(r, j) >> 2 * g & 3);
    if (type == DType::w3) code[k] |= uint8_t((bits(8 + r / 2, j) >> (r % 2 * 4 + g) & 1) << 2);
  }
}

}  // namespace

int32_t integers_of(DType type, const RowCodes& row, int8_t* out) {
  int32_t sum = 0;
  for (size_t k = 0; k < row.code.size(); ++k) {
    int value = row.code[k];
    if (type != DType::w8) {
      const int group = row.groups[k / group_cols], scale = group & 15;
      value = value * scale - offset_of(type, scale, group >> 4);
    }
    value = ((value & 255) ^ 128) - 128;  // as the bytes of an int8 wrap
    out[k] = int8_t(value);
    sum += value;
  }
  return sum;
}

void pack_row(DType type, const RowCodes& row, int64_t row_of_panel, int64_t cols, std::byte* panel) {
  CHECK(is_packed(type) && int64_t(row.code.size()) == padded_cols(cols));
  CHECK(type == DType::w8 || int64_t(row.groups.size()) * group_cols == padded_cols(cols));
  for (int64_t first = 0; first < cols; first += block_cols, panel += info_of(type).block_bytes) {
    put_block(type, row.code.data() + first, BlockRow<std::byte>{panel + row_of_panel * 4});
    if (type == DType::w8) continue;
    for (int64_t g = 0; g < block_cols / group_cols; ++g)
      panel[group_line(type) * line + g * panel_rows + row_of_panel] = std::byte(row.groups[size_t(first / group_cols + g)]);
  }
}

RowCodes unpack_row(const Weight& w, int64_t row) {
  CHECK(is_packed(w.dtype) && row >= 0 && row < padded_rows(w.rows));
  RowCodes codes{std::vector<uint8_t>(size_t(padded_cols(w.cols))), {}, w.scale[row]};
  if (w.dtype != DType::w8) codes.groups.resize(codes.code.size() / group_cols);
  const int64_t c = row % panel_rows;
  const std::byte* block = w.data + row / panel_rows * panel_bytes(w.dtype, w.cols);
  for (int64_t first = 0; first < w.cols; first += block_cols, block += info_of(w.dtype).block_bytes) {
    take_block(w.dtype, BlockRow<const std::byte>{block + c * 4}, codes.code.data() + first);
    if (w.dtype == DType::w8) continue;
    for (int64_t g = 0; g < block_cols / group_cols; ++g)
      codes.groups[size_t(first / group_cols + g)] = uint8_t(block[group_line(w.dtype) * line + g * panel_rows + c]);
  }
  return codes;
}

void rotate_row(float* x, int64_t cols) { kernels().rotate(x, cols, rotated_run(cols)); }

void values_of(const RowCodes& row, const Weight& w, float* out) {
  std::vector<int8_t> integers(row.code.size());
  integers_of(w.dtype, row, integers.data());
  for (int64_t i = 0; i < w.cols; ++i) out[i] = float(integers[size_t(i)]) * row.scale;
  rotate_row(out, w.cols);
}

}  // namespace hadal
