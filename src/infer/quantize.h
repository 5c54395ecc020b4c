// Which integers stand for the weights of a matrix: round to nearest, with the scales searched that leave the smallest squared error.
// The bytes they become are ops/pack.h's business, so that other methods can choose codes too.
#pragma once
#include <cstdint>
#include <functional>
#include <span>

#include "core/dtype.h"
#include "ops/pack.h"

namespace hadal {

struct SquaredError {  // of a matrix or a part of it
  double error = 0, norm = 0;
  SquaredError& operator+=(const SquaredError& more) { return error += more.error, norm += more.norm, *this; }
  double relative() const;  // root of their ratio; 0 of nothing
};

struct QuantizeOptions {
  std::span<const float> importance;  // of each rotated column: weight of its squared error; none: all the same
  bool thorough = false;              // tries more scales: some 4 times slower
};

// The codes of one row; columns beyond its end get codes whose products are never used. Every integer is in [-128, 127]. Values are finite.
SquaredError choose_codes(DType type, std::span<const float> row, const QuantizeOptions& options, RowCodes& codes);

struct PackedMemory {  // where a packed matrix goes
  std::byte* blocks;   // [packed_bytes]
  float* scale;        // [padded rows]
  int32_t* sum;        // [padded rows]
};

// Packs a matrix over the threads of pool(); `read` fills one row of floats and may be called from any of them.
// Error naming `name`: a value is not finite, or a row is longer than integer sums can hold.
using ReadRow = std::function<void(int64_t row, float* out)>;
SquaredError pack_matrix(DType type, int64_t rows, int64_t cols, const ReadRow& read, const PackedMemory& to, const std::string& name,
                         const QuantizeOptions& options = {});

}  // namespace hadal
