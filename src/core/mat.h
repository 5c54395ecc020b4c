// A matrix is the only tensor the hot path knows. Rows are tokens.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/dtype.h"

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

struct Weight {                     // one matrix of the model, in the bytes the kernels want: row-major [rows, cols]
  DType dtype = DType::f32;         // f32, f16 or bf16
  int64_t rows = 0, cols = 0;       // logical shape (out, in); a vector of n is [n, 1]
  const std::byte* data = nullptr;  // owned by Model
  const float* as_f32() const { return reinterpret_cast<const float*>(data); }  // dtype must be f32
  Weight rows_from(int64_t first, int64_t count) const { return {dtype, count, cols, data + bytes_of(dtype, first * cols)}; }
  explicit operator bool() const { return data != nullptr; }
};

}  // namespace hadal
