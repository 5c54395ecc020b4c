// Which kernel multiplies with which weight.
#pragma once
#include <vector>

#include "core/error.h"
#include "core/mat.h"
#include "kernels/kernels.h"
#include "ops/ops.h"

namespace hadal {

inline auto gemm_for(DType weight) {
  if (weight == DType::f32) return kernels().gemm_f32_f32;
  if (weight == DType::bf16) return kernels().gemm_f32_bf16;
  CHECK(weight == DType::f16);
  return kernels().gemm_f32_f16;
}

inline auto packed_gemm_for(DType weight) {
  if (weight == DType::w8) return kernels().gemm_u8_w8;
  if (weight == DType::w4) return kernels().gemm_u8_w4;
  if (weight == DType::w3) return kernels().gemm_u8_w3;
  CHECK(weight == DType::w2);
  return kernels().gemm_u8_w2;
}

inline auto mix_for(DType value) {
  CHECK(value == DType::f32 || value == DType::f16);
  return value == DType::f32 ? kernels().mix_f32_f32 : kernels().mix_f32_f16;
}

// A row of floats to the bytes that packed weights of n columns read; returns their scale.
inline float codes_of_row(uint8_t* out, const float* x, int64_t n, int64_t padded) {
  thread_local std::vector<float> rotated;
  rotated.assign(x, x + n);
  kernels().rotate(rotated.data(), n, rotated_run(n));
  return kernels().u8_from_f32(out, rotated.data(), n, padded);
}

// out = in w^T on the calling thread.
inline void multiply(Mat<float> out, const Input& in, const Weight& w) {
  if (!is_packed(w.dtype))
    return gemm_for(w.dtype)({.c = out.data,
                              .a = in.x.data,
                              .b = w.data,
                              .m = out.rows,
                              .n = out.cols,
                              .k = w.cols,
                              .lda = in.x.stride,
                              .ldb = w.cols,
                              .ldc = out.stride});
  const int64_t blocks = padded_cols(w.cols) / block_cols;
  thread_local std::vector<std::byte> scratch;
  if (int64_t(scratch.size()) < blocks * 4096) scratch.resize(size_t(blocks * 4096));
  packed_gemm_for(w.dtype)({.c = out.data,
                            .a = in.codes.data,
                            .a_scale = in.scale,
                            .w = w.data,
                            .w_scale = w.scale,
                            .w_sum = w.sum,
                            .m = out.rows,
                            .n = out.cols,
                            .k_blocks = blocks,
                            .lda = in.codes.stride,
                            .ldc = out.stride,
                            .scratch = scratch.data()});
}

}  // namespace hadal
