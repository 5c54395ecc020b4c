// A matrix is the only tensor the hot path knows. Rows are tokens.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/dtype.h"
#include "core/packed.h"

namespace hadal {

template <class T>
struct Mat {  // a view: it never owns
  T* data = nullptr;
  int64_t rows = 0, cols = 0, stride = 0;  // stride in elements, >= cols
  T* row(int64_t r) const { return data + r * stride; }
  Mat rows_from(int64_t first, int64_t count) const { return {row(first), count, cols, stride}; }
  Mat cols_from(int64_t first, int64_t count) const { return {data + first, rows, count, stride}; }
  operator Mat<const T>() const requires(!std::is_const_v<T>) { return {data, rows, cols, stride}; }
};

struct Weight {                     // one matrix of the model, in the bytes the kernels want: row-major [rows, cols], or packed
  DType dtype = DType::f32;         // f32, f16, bf16, w8, w4, w3 or w2
  int64_t rows = 0, cols = 0;       // logical shape (out, in); a vector of n is [n, 1]
  const std::byte* data = nullptr;  // owned by Model
  const float* scale = nullptr;     // packed: of each row
  const int32_t* sum = nullptr;     // packed: of each row's integers
  const float* as_f32() const { return reinterpret_cast<const float*>(data); }  // dtype must be f32
  Weight rows_from(int64_t first, int64_t count) const {                        // packed: first is a multiple of 16
    if (!is_packed(dtype)) return {dtype, count, cols, data + bytes_of(dtype, first * cols)};
    return {dtype, count, cols, data + first / panel_rows * panel_bytes(dtype, cols), scale + first, sum + first};
  }
  int64_t bytes() const {  // of everything that one use of the matrix reads
    return is_packed(dtype) ? packed_bytes(dtype, rows, cols) + padded_rows(rows) * 8 : bytes_of(dtype, rows * cols);
  }
  explicit operator bool() const { return data != nullptr; }
};

}  // namespace hadal
