// The whole contract between the maths and the instruction set. Leaf functions: one thread, no allocation, no exceptions,
// no includes beyond this file. Any size from 0 up; nothing needs alignment; nothing reads past the end of a row.
//
// Order of addition is part of the contract: an output element depends on its own row of `a` and its own row of `b` only, never on m, n,
// the tile it fell into or its neighbours. A dot product keeps 16 partial sums, element i going to sum i % 16, and adds them pairwise
// (8+8, 4+4, 2+2, 1+1). Multiplications and additions are fused, exp is one polynomial: every level gives the same bits.
#pragma once
#include <cstdint>

#include "kernels/attend.h"

namespace hadal {

struct GemmArgs {  // c[m, n] = a[m, k] * b[n, k]^T; all row-major, strides in elements
  float* c;
  const float* a;
  const void* b;
  int64_t m, n, k, lda, ldb, ldc;
};

struct PackedArgs {  // c[m, n] = a_scale[m] * w_scale[n] * sum over k of (a[m, k] - 128) * w[n, k]; w in the layout of core/packed.h
  float* c;
  const uint8_t* a;  // integers in [-127, 127] plus 128; columns up to k_blocks * 128 are there, 128 (zero) behind the row's end
  const float* a_scale;
  const void* w;         // the first panel; n counts rows from its first on
  const float* w_scale;  // of each row of w
  const int32_t* w_sum;  // of each row's integers
  int64_t m, n, k_blocks, lda, ldc;
  void* scratch;  // 4096 * k_blocks bytes of the thread's own
};                // The sum is exact and becomes a float once, then times w_scale, then times a_scale: every level gives the same bits.

struct MixArgs {  // out[m, n] += p[m, k] * v[k, n]; all row-major; k in order
  float* out;
  const float* p;
  const void* v;
  int64_t m, n, k, ldp, ldv, ldout;
};

struct Kernels {
  const char* name;
  // Matrix products, named op_activation_weight.
  void (*gemm_f32_f32)(const GemmArgs&);
  void (*gemm_f32_bf16)(const GemmArgs&);
  void (*gemm_f32_f16)(const GemmArgs&);
  void (*gemm_u8_w8)(const PackedArgs&) = nullptr;
  void (*gemm_u8_w4)(const PackedArgs&) = nullptr;
  void (*gemm_u8_w3)(const PackedArgs&) = nullptr;
  void (*gemm_u8_w2)(const PackedArgs&) = nullptr;
  void (*mix_f32_f32)(const MixArgs&);
  void (*mix_f32_f16)(const MixArgs&);
  // Rows. `out` may be `x`.
  void (*rms_norm)(float* out, const float* x, const float* weight, int64_t n, float eps);
  void (*layer_norm)(float* out, const float* x, const float* weight, const float* bias, int64_t n, float eps);
  void (*silu_mul)(float* gate, const float* up, int64_t n);         // gate = gate / (1 + exp(-gate)) * up
  void (*add)(float* x, const float* y, int64_t n);                  // x += y
  void (*add_scaled)(float* x, const float* y, float s, int64_t n);  // x += s * y
  void (*scale)(float* x, float s, int64_t n);                       // x *= s
  // One block of an online softmax: scores become exp(score - max), the state moves on; returns the factor that everything
  // accumulated before must be multiplied with (1 when the maximum did not move, 0 at the first block). -inf is a masked score.
  float (*softmax_block)(float* scores, int64_t n, SoftmaxState* state);
  void (*rope_halves)(float* x, const float* cos, const float* sin, int64_t half);  // pairs (i, i + half)
  void (*rope_pairs)(float* x, const float* cos, const float* sin, int64_t half);   // pairs (2i, 2i + 1)
  void (*f16_from_f32)(uint16_t* out, const float* x, int64_t n);                   // to nearest even; saturates at +-65504, NaN stays NaN
  void (*f32_from_bf16)(float* out, const uint16_t* x, int64_t n);
  void (*f32_from_f16)(float* out, const uint16_t* x, int64_t n);
  // Each run of `run` elements (a power of two up to 512 that divides n) times the Walsh-Hadamard matrix / sqrt(run), its own inverse.
  void (*rotate)(float* x, int64_t n, int64_t run) = nullptr;
  // A row for the products above: x = (out - 128) * the returned scale, which is absmax / 127; 0 for a row of zeros, NaN where one is.
  float (*u8_from_f32)(uint8_t* out, const float* x, int64_t n, int64_t padded) = nullptr;
  // Attention over int8 pages: kernels/attend.h.
  float (*quantize)(int8_t* out, const float* x, int64_t n,
                    int32_t* sum) = nullptr;  // x = out * returned scale, absmax / 127; sum of the integers
  void (*score_page)(const ScoreArgs&) = nullptr;
  void (*softmax_page)(const PageSoftmaxArgs&) = nullptr;
  void (*mix_page)(const MixPageArgs&) = nullptr;
  // The largest over the visible rows of size * sum over d of q[d] * sign of k[d]; -inf when none is. dims <= 2^20
  float (*best_in_sketch)(const int8_t* q, const void* sketch, int64_t dims, uint64_t visible) = nullptr;
  void (*merge)(float* out, SoftmaxState* state, const float* other, const SoftmaxState* other_state,
                int64_t n) = nullptr;  // two parts of the keys
  // What the machine can do at best, for probe_machine() and the benchmarks.
  uint64_t (*read_bytes)(const void* data, int64_t bytes);  // reads all whole 8-byte words once, in several streams; their xor
  int64_t (*fma_peak)(int64_t rounds);                // independent chains of multiply-add in registers; floating-point operations done
  int64_t (*integer_peak)(int64_t rounds) = nullptr;  // the same of the integer products of gemm_u8_*; operations done
};

enum class Isa { scalar, avx2, avx512, vnni, amx };
constexpr Isa isa_levels[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::vnni, Isa::amx};
Isa best_isa();                // what this CPU and this OS allow
Kernels kernels_for(Isa isa);  // each level overrides what it does better than the one below
Isa chosen_isa();              // best_isa(), lowered by the environment: HADAL_ISA=scalar|avx2|avx512|vnni|amx
const Kernels& kernels();      // kernels_for(chosen_isa()), made once

// Kernels cannot throw: a program asks this first and reports. Returns the value of HADAL_ISA when it names no level, else null.
const char* unknown_isa();
bool parse_isa(const char* name, Isa* isa);

void fill_scalar(Kernels& k);  // scalar/, avx2/, ... each define exactly one of these
void fill_avx2(Kernels& k);
void fill_avx512(Kernels& k);
void fill_scalar_packed(Kernels& k);
void fill_avx2_packed(Kernels& k);
void fill_vnni_packed(Kernels& k);
void fill_amx_packed(Kernels& k);
void fill_scalar_attend(Kernels& k);
void fill_avx2_attend(Kernels& k);
void fill_vnni_attend(Kernels& k);

}  // namespace hadal
