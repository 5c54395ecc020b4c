// Integer codes to and from the bytes of core/packed.h. Which codes are good ones is not decided here (infer/quantize.h).
#pragma once
#include <cstdint>
#include <vector>

#include "core/mat.h"

namespace hadal {

struct RowCodes {               // one row of a packed matrix
  std::vector<uint8_t> code;    // of each padded column; w8: the integer as int8
  std::vector<uint8_t> groups;  // of each 32 columns: scale | zero code << 4; w8: none
  float scale = 0;
};

constexpr int levels_of(DType packed) { return packed == DType::w4 ? 16 : packed == DType::w3 ? 8 : 4; }  // codes of w4, w3 and w2
// What a group's scale and zero code take away from every product of scale and code.
constexpr int offset_of(DType packed, int scale, int zero) {
  return scale * (zero + 9) >> (packed == DType::w4 ? 1 : packed == DType::w3 ? 2 : 3);
}

// The integers of a row, [padded columns]; returns their sum.
int32_t integers_of(DType type, const RowCodes& row, int8_t* out);
// Writes row `row` < 16 of a panel of padded_cols(cols) columns; rows do not share bytes.
void pack_row(DType type, const RowCodes& row, int64_t row_of_panel, int64_t cols, std::byte* panel);
RowCodes unpack_row(const Weight& w, int64_t row);                 // the inverse, of any bytes
void rotate_row(float* x, int64_t cols);                           // as core/packed.h says; its own inverse
void values_of(const RowCodes& row, const Weight& w, float* out);  // as floats [w.cols], rotated back

}  // namespace hadal
