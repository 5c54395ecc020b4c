// Integer weights in the layout that the kernels read: the same bytes in a file, in memory and for every instruction set.
// Source of the format: docs/formats.md.
//
// A matrix [rows, cols] is cut into panels of 16 rows, a panel into blocks of 16 rows x 128 columns that follow each other; both sides are
// padded with weights of value 0. A block consists of 64-byte lines. Value w(c, k) of row c < 16 and column k < 128 stands in
//   w8   32 lines: byte c * 4 + k % 4 of line k / 4, as int8 in [-127, 127]
//   w4   16 lines of codes: k = 64 h + 4 r + j in half h of byte c * 4 + j of line r; h = 0 is the low half
//   w3    8 lines as w2, then 4 lines of the codes' third bits: k = 32 g + 4 r + j in bit (r % 2) * 4 + g of byte c * 4 + j of line r / 2
//   w2    8 lines of codes: k = 32 g + 4 r + j in bits 2 g and 2 g + 1 of byte c * 4 + j of line r
// and w4, w3 and w2 end with one line of groups: byte g * 16 + c belongs to columns 32 g .. 32 g + 31 of row c, the low half a scale s in
// [0, 15], the high half a zero code z in [0, 15]. The integer is
//   w4: code * s - (s * (z + 9) >> 1)    w3: code * s - (s * (z + 9) >> 2)    w2: code * s - (s * (z + 9) >> 3)
// which the packer keeps inside an int8; the weight is the integer times its row's scale. Beside the blocks lie, for each of the padded
// rows, that scale (float) and the sum of the row's integers (int32).
//
// What is packed is the matrix with its rows rotated, and what multiplies it are rotated activations, which leaves products as they are:
// each run of rotated_run(cols) columns times the Walsh-Hadamard matrix. A few large activations, which would take all of a row's 255 steps
// for themselves, are thereby spread over their run (QuaRot, arXiv 2404.00456).
#pragma once
#include <cstdint>

#include "core/dtype.h"

namespace hadal {

constexpr int64_t rotated_run(int64_t cols) { return (cols & -cols) < 512 ? cols & -cols : 512; }  // the largest power of two that divides

constexpr int64_t panel_rows = 16, block_cols = 128, group_cols = 32;

constexpr bool is_packed(DType t) { return t == DType::w8 || t == DType::w4 || t == DType::w3 || t == DType::w2; }
constexpr int64_t padded_rows(int64_t rows) { return (rows + panel_rows - 1) / panel_rows * panel_rows; }
constexpr int64_t padded_cols(int64_t cols) { return (cols + block_cols - 1) / block_cols * block_cols; }
constexpr int64_t panel_bytes(DType t, int64_t cols) { return padded_cols(cols) / block_cols * info_of(t).block_bytes; }
constexpr int64_t packed_bytes(DType t, int64_t rows, int64_t cols) { return padded_rows(rows) / panel_rows * panel_bytes(t, cols); }

}  // namespace hadal
