// Shapes, threads and number formats live here; instructions live in kernels/. Every op splits its work over pool() and returns when done.
// Results do not depend on the number of threads or on what else is in the batch.
#pragma once
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <vector>

#include "core/mat.h"

namespace hadal {

// Rows that products read: floats, and for packed weights bytes (one scale per row), written once for all the products that share them.
struct Input {
  Mat<const float> x;
  Mat<const uint8_t> codes = {};  // x = (codes - 128) * scale of the row; no data: not quantized
  const float* scale = nullptr;
  Input(Mat<const float> floats) : x(floats) {}
  Input(Mat<float> floats) : x(floats) {}
  Input rows_from(int64_t first, int64_t count) const;
};
struct CodeRoom {  // keeps the bytes
  std::vector<uint8_t> codes;
  std::vector<float> scale;
};
Input quantize(Mat<const float> x, CodeRoom& room);

struct Product {  // out = x w^T
  Mat<float> out;
  const Weight& w;
};
Input input_for(std::initializer_list<Product> readers, Mat<const float> x, CodeRoom& room);  // quantized if one of them is packed
void matmul(std::initializer_list<Product> products, const Input& in);                        // all in one phase
void matmul(Mat<float> out, const Input& in, const Weight& w);

// A product of two thin matrices that stands beside a Weight [out, in].
struct LowRank {
  Mat<const float> down, up;  // [rank, in], [rank, out]; no rows: nothing
  explicit operator bool() const { return down.rows > 0; }
};
struct Addition {  // out += x down^T up
  Mat<float> out;
  Mat<const float> x;
  LowRank w;
};
void add_low_rank(std::span<const Addition> additions, std::vector<float>& room);  // all in two phases; no two write to the same place
void add_bias(Mat<float> x, const Weight& bias);                                   // every row += bias (f32)
void rms_norm(Mat<float> out, Mat<const float> x, const Weight& w, float eps);
void layer_norm(Mat<float> out, Mat<const float> x, const Weight& w, const Weight& bias, float eps);
void silu_mul(Mat<float> gate, Mat<const float> up);  // gate = silu(gate) * up
void add(Mat<float> x, Mat<const float> y);           // x += y
// One row of stored numbers to and from floats. load_row: f32, bf16 or f16; store_row: f32 or f16, which saturates at +-65504.
void load_row(float* to, DType type, const std::byte* from, int64_t n);
void store_row(std::byte* to, DType type, const float* from, int64_t n);
void embed(Mat<float> out, const Weight& table, std::span<const int32_t> tokens);  // out[r] = table[tokens[r]]

// Rotates the first 2 * half columns of every head of every row; row r takes row r of the tables.
struct RopeTables {
  Mat<const float> cos, sin;  // [rows, half]
  bool pairs;                 // (2i, 2i+1), else (i, i + half)
};
void rope(Mat<float> x, int64_t heads, int64_t head_stride, const RopeTables& tables);

// One product per head, all in one phase: out[:, h * out_step ..] = x[:, h * x_step ..] w[first_row + h * row_step ..]^T
struct HeadProducts {
  Mat<float> out;      // from the first head's first column on
  Mat<const float> x;  // from the first head's first column on; x_step 0: every head reads the same columns
  const Weight& w;
  int64_t heads, out_step, x_step, first_row, row_step, rows_per_head;
};
void matmul_heads(const HeadProducts& p);

// Experts. A row goes to `active` experts; the rows of one expert are multiplied together.
struct Route {
  int64_t active = 0;
  std::vector<int32_t> expert;  // [rows * active], each row's experts in ascending order
  std::vector<float> weight;    // [rows * active]
};
struct ExpertWeights {
  const Weight &gate, &up, &down;
};
struct ExpertScratch {
  std::vector<float> x, gate, up, y, low;
  CodeRoom x_codes, pair_codes, hidden_codes;
  std::vector<int32_t> slot;
};
struct ReadyExpert {
  int32_t expert;
  ExpertWeights weights;
};
class ExpertSource {  // where the weights of one layer's experts come from: memory, or a disk that brings some before others
 public:
  virtual ~ExpertSource() = default;
  virtual void begin(std::span<const int32_t> experts) = 0;  // those that will be asked for, ascending
  virtual std::vector<ReadyExpert> next() = 0;               // some of them, valid until the next call; none: all have been handed out
};
struct ExpertLowRank {
  LowRank gate, up, down;
};
using ExpertAdapters = std::function<ExpertLowRank(int64_t row, int32_t expert)>;  // what stands beside an expert's weights for this row
// out[r] += sum over the row's experts of weight * down(silu(gate x_r) * up x_r), in ascending order of expert.
void experts(Mat<float> out, Mat<const float> x, const Route& route, ExpertSource& source, ExpertScratch& scratch,
             const ExpertAdapters& adapters = {});

}  // namespace hadal
