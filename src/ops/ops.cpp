// The ops that are one kernel over rows.
#include "ops/ops.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/pool.h"
#include "kernels/kernels.h"
#include "ops/pack.h"

namespace hadal {
namespace {

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows in tasks of at least 16 Ki elements: smaller ones cost more to hand out than to do.
template <class F>
void for_rows(int64_t rows, int64_t cols, F f) {
  const int64_t together = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, cols));
  pool().run(divide_up(rows, together), [&](int64_t task) {
    for (int64_t r = task * together; r < std::min(rows, (task + 1) * together); ++r) f(r);
  });
}

const float* vector_of(const Weight& w, int64_t n) {
  CHECK(w.dtype == DType::f32 && w.rows * w.cols == n);
  return w.as_f32();
}

}  // namespace

void add_bias(Mat<float> x, const Weight& bias) {
  const float* b = vector_of(bias, x.cols);
  for_rows(x.rows, x.cols, [&](int64_t r) { kernels().add(x.row(r), b, x.cols); });
}

void rms_norm(Mat<float> out, Mat<const float> x, const Weight& w, float eps) {
  CHECK(out.rows == x.rows && out.cols == x.cols);
  const float* weight = vector_of(w, x.cols);
  for_rows(x.rows, x.cols, [&](int64_t r) { kernels().rms_norm(out.row(r), x.row(r), weight, x.cols, eps); });
}

void layer_norm(Mat<float> out, Mat<const float> x, const Weight& w, const Weight& bias, float eps) {
  CHECK(out.rows == x.rows && out.cols == x.cols);
  const float *weight = vector_of(w, x.cols), *b = vector_of(bias, x.cols);
  for_rows(x.rows, x.cols, [&](int64_t r) { kernels().layer_norm(out.row(r), x.row(r), weight, b, x.cols, eps); });
}

void silu_mul(Mat<float> gate, Mat<const float> up) {
  CHECK(gate.rows == up.rows && gate.cols == up.cols);
  for_rows(gate.rows, gate.cols, [&](int64_t r) { kernels().silu_mul(gate.row(r), up.row(r), gate.cols); });
}

void add(Mat<float> x, Mat<const float> y) {
  CHECK(x.rows == y.rows && x.cols == y.cols);
  for_rows(x.rows, x.cols, [&](int64_t r) { kernels().add(x.row(r), y.row(r), x.cols); });
}

void load_row(float* to, DType type, const std::byte* from, int64_t n) {
  if (n == 0) return;  // memcpy wants addresses even for nothing
  const auto* half = reinterpret_cast<const uint16_t*>(from);
  switch (type) {
    case DType::f32:
      std::memcpy(to, from, size_t(n) * sizeof(float));
      break;
    case DType::bf16:
      kernels().f32_from_bf16(to, half, n);
      break;
    case DType::f16:
      kernels().f32_from_f16(to, half, n);
      break;
    default:
      CHECK(!"a row of f32, bf16 or f16");
  }
}

void store_row(std::byte* to, DType type, const float* from, int64_t n) {
  CHECK(type == DType::f32 || type == DType::f16);
  if (n == 0) return;
  if (type == DType::f32)
    std::memcpy(to, from, size_t(n) * sizeof(float));
  else
    kernels().f16_from_f32(reinterpret_cast<uint16_t*>(to), from, n);
}

void embed(Mat<float> out, const Weight& table, std::span<const int32_t> tokens) {
  CHECK(out.rows == int64_t(tokens.size()) && out.cols == table.cols);
  for_rows(out.rows, out.cols, [&](int64_t r) {
    const int64_t token = tokens[size_t(r)];
    CHECK(token >= 0 && token < table.rows);
    if (is_packed(table.dtype)) return values_of(unpack_row(table, token), table, out.row(r));
    load_row(out.row(r), table.dtype, table.rows_from(token, 1).data, out.cols);
  });
}

void rope(Mat<float> x, int64_t heads, int64_t head_stride, const RopeTables& tables) {
  const int64_t half = tables.cos.cols;
  CHECK(tables.cos.rows >= x.rows && tables.sin.rows >= x.rows && tables.sin.cols == half);
  CHECK(heads == 0 || (heads - 1) * head_stride + 2 * half <= x.cols);
  const auto rotate = tables.pairs ? kernels().rope_pairs : kernels().rope_halves;
  for_rows(x.rows, x.cols, [&](int64_t r) {
    for (int64_t h = 0; h < heads; ++h) rotate(x.row(r) + h * head_stride, tables.cos.row(r), tables.sin.row(r), half);
  });
}

}  // namespace hadal
