// Which kernel multiplies with which weight.
#pragma once
#include "core/error.h"
#include "core/mat.h"
#include "kernels/kernels.h"

namespace hadal {

inline auto gemm_for(DType weight) {
  if (weight == DType::f32) return kernels().gemm_f32_f32;
  if (weight == DType::bf16) return kernels().gemm_f32_bf16;
  CHECK(weight == DType::f16);
  return kernels().gemm_f32_f16;
}

inline auto mix_for(DType value) {
  CHECK(value == DType::f32 || value == DType::f16);
  return value == DType::f32 ? kernels().mix_f32_f32 : kernels().mix_f32_f16;
}

}  // namespace hadal
