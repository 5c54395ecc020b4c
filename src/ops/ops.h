// Shapes, threads and number formats live here; instructions live in kernels/. Every op splits its work over pool() and returns when done.
// Results do not depend on the number of threads or on what else is in the batch.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/mat.h"

namespace hadal {

void matmul(Mat<float> out, Mat<const float> x, const Weight& w);                     // out = x w^T
void add_bias(Mat<float> x, const Weight& bias);                                      // every row += bias (f32)
void rms_norm(Mat<float> out, Mat<const float> x, const Weight& w, float eps);
void layer_norm(Mat<float> out, Mat<const float> x, const Weight& w, const Weight& bias, float eps);
void silu_mul(Mat<float> gate, Mat<const float> up);                                  // gate = silu(gate) * up
void add(Mat<float> x, Mat<const float> y);                                           // x += y
void embed(Mat<float> out, const Weight& table, std::span<const int32_t> tokens);     // out[r] = table[tokens[r]]

// Rotates the first 2 * half columns of every head of every row; row r takes row r of the tables.
struct RopeTables {
  Mat<const float> cos, sin;  // [rows, half]
  bool pairs;                 // (2i, 2i+1), else (i, i + half)
};
void rope(Mat<float> x, int64_t heads, int64_t head_stride, const RopeTables& tables);

// Attention of rows [0, q.rows) of one sequence over its cached rows; row r sees keys 0 .. position + r.
// Head h of a row reads key columns [key_offset(h / group), + key_dim) and value columns likewise of each cached row.
struct AttendArgs {
  Mat<float> out;                  // [rows, heads * value_dim]
  Mat<const float> q;              // [rows, heads * key_dim], rotated
  int64_t heads, kv_heads, key_dim, value_dim;
  int64_t key_offset, key_step;    // first column of kv head 0, distance to the next
  int64_t value_offset, value_step;
  float scale;
  DType cache;                     // f32 or bf16
  std::span<const std::byte* const> pages;  // of page_rows rows each, stride `width` elements
  int64_t page_rows, width, position;
  // Keys each row may see besides the causal rule: word (r, page) holds one bit per row of the page. Empty: all of them.
  Mat<const uint64_t> selected;
};
void attend(std::span<const AttendArgs> segments);

// Experts. A row goes to `active` experts; the products of all rows of one expert are done together.
struct Route {
  std::vector<int32_t> expert;  // [rows * active], the chosen experts of each row in ascending order
  std::vector<float> weight;    // [rows * active]
};
struct ExpertWeights {
  Weight gate, up, down;
};
// out[r] += sum over the chosen experts of weight * down(silu(gate x_r) * up x_r), in ascending order of expert.
void experts(Mat<float> out, Mat<const float> x, const Route& route, int64_t active, std::span<const ExpertWeights> all);

}  // namespace hadal
