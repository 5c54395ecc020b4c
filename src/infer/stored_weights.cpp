#include "infer/stored_weights.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "core/error.h"
#include "core/pool.h"
#include "infer/recipe.h"

namespace hadal {
namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

bool has_shape(const StoredTensor& t, Shape want) {
  if (t.shape.size() == 1) return want.cols == 1 && t.shape[0] == want.rows;
  return t.shape.size() == 2 && t.shape[0] == want.rows && t.shape[1] == want.cols;
}

Shape as_rows(Shape s) { return s.cols == 1 ? Shape{1, s.rows} : s; }

}  // namespace

void convert_row(std::span<const float> row, DType to, std::byte* out) {
  if (to == DType::f32) std::ranges::copy(row, reinterpret_cast<float*>(out));
  if (to == DType::f16) std::ranges::transform(row, reinterpret_cast<f16*>(out), f32_to_f16);
  if (to == DType::bf16) std::ranges::transform(row, reinterpret_cast<bf16*>(out), f32_to_bf16);
}

void check_packed(const Weight& w, const std::string& name) {
  const int64_t largest = 128 * padded_cols(w.cols);
  for (int64_t r = 0; r < padded_rows(w.rows); ++r) {
    if (!std::isfinite(w.scale[r])) throw Error("tensor {}_scale: row {}: expected a finite number, found {}", name, r, w.scale[r]);
    if (std::abs(int64_t(w.sum[r])) > largest)
      throw Error("tensor {}_sum: row {}: expected a sum of {} int8 values, found {}", name, r, padded_cols(w.cols), w.sum[r]);
  }
}

bool StoredWeights::is_packed(const std::string& name) const {
  const auto at = checkpoint_.tensors.find(name);
  return at != checkpoint_.tensors.end() && at->second.dtype == DType::u8;
}

const StoredTensor& StoredWeights::part(const std::string& name, DType type, std::vector<int64_t> shape) {
  const auto at = checkpoint_.tensors.find(name);
  if (at == checkpoint_.tensors.end()) throw Error("tensor {} is missing: expected {} {}", name, name_of(type), shape_text(shape));
  const StoredTensor& t = at->second;
  if (t.dtype != type || t.shape != shape || !t.strides.empty())
    throw Error("tensor {}: expected {} {}, found {} {}", name, name_of(type), shape_text(shape), name_of(t.dtype), shape_text(t.shape));
  if (reinterpret_cast<uintptr_t>(t.data) % 4 != 0) throw Error("tensor {}: expected it on a multiple of 4 bytes in the file", name);
  used_.insert(name);
  return t;
}

Weight StoredWeights::packed(const std::string& name, Shape shape, bool unread) {
  const StoredTensor& stored = checkpoint_.tensors.at(name);
  const std::string text = fmt::format("matrix of {} x {}", shape.rows, shape.cols);
  const DType* type = nullptr;
  static constexpr DType types[] = {DType::w8, DType::w4, DType::w3, DType::w2};
  for (const DType& t : types)
    if (stored.shape.size() == 2 && stored.shape[1] == info_of(t).block_bytes) type = &t;
  if (!type)
    throw Error("tensor {}: expected blocks of 2048, 1088, 832 or 576 bytes (w8, w4, w3, w2), found shape {}", name,
                shape_text(stored.shape));
  if (!can_be_packed(config_, name)) throw Error("tensor {}: a packed matrix cannot be used head by head with these head sizes", name);
  if (shape.cols > int64_t(1) << 17) throw Error("tensor {}: rows of {} values cannot be packed", name, shape.cols);
  const int64_t blocks = padded_rows(shape.rows) / panel_rows * (padded_cols(shape.cols) / block_cols);
  if (stored.shape[0] != blocks)
    throw Error("tensor {}: expected {} blocks of {} for a {}, found {}", name, blocks, name_of(*type), text, stored.shape[0]);
  const int64_t rows = padded_rows(shape.rows);
  Weight w{*type, shape.rows, shape.cols, part(name, DType::u8, {blocks, info_of(*type).block_bytes}).data, nullptr, nullptr};
  w.scale = reinterpret_cast<const float*>(part(name + "_scale", DType::f32, {rows}).data);
  w.sum = reinterpret_cast<const int32_t*>(part(name + "_sum", DType::i32, {rows}).data);
  if (!unread) check_packed(w, name);
  return w;
}

const StoredTensor& StoredWeights::find(const std::string& name, Shape shape) {
  const auto at = checkpoint_.tensors.find(name);
  const std::vector<int64_t> want = shape.cols == 1 ? std::vector{shape.rows} : std::vector{shape.rows, shape.cols};
  if (at == checkpoint_.tensors.end())
    throw Error("tensor {} is missing: the configuration expects it with shape {}; the checkpoint has {} tensors", name, shape_text(want),
                checkpoint_.tensors.size());
  if (!has_shape(at->second, shape))
    throw Error("tensor {}: expected shape {}, found {}", name, shape_text(want), shape_text(at->second.shape));
  used_.insert(name);
  return at->second;
}

ReadRow StoredWeights::rows(const std::string& name, Shape shape) {
  const StoredTensor& t = find(name, shape);
  const int64_t cols = as_rows(shape).cols;  // the blocks of a vector must not be cut
  const auto scale = checkpoint_.tensors.find(name + "_scale_inv");
  if (t.dtype != DType::f8e4m3 || (scale == checkpoint_.tensors.end() && shape.cols == 1))
    return [&t, cols](int64_t row, float* out) { to_f32(t, row * cols, cols, out); };
  // FP8: one factor per block of rows and columns.
  const Fp8Config fp8 = config_.fp8;
  const int64_t per_row = (shape.cols + fp8.block_cols - 1) / fp8.block_cols;
  const Shape want{(shape.rows + fp8.block_rows - 1) / fp8.block_rows, per_row};
  const StoredTensor& stored = find(name + "_scale_inv", want);
  std::vector<float> factors(size_t(want.rows * per_row));
  to_f32(stored, 0, want.rows * per_row, factors.data());
  return [&t, cols, fp8, per_row, factors = std::move(factors)](int64_t row, float* out) {
    to_f32(t, row * cols, cols, out);
    const float* factor = factors.data() + row / fp8.block_rows * per_row;
    for (int64_t i = 0; i < cols; ++i) out[i] *= factor[i / fp8.block_cols];
  };
}

DType StoredWeights::plain_type(const std::string& name, Shape shape) {
  const StoredTensor& t = find(name, shape);
  if (t.dtype == DType::bf16 || t.dtype == DType::f32 || t.dtype == DType::f16) return t.dtype;
  if (info_of(t.dtype).block_values == 1 && t.dtype != DType::f8e4m3) return DType::f32;
  const ReadRow read = rows(name, shape);
  const Shape s = as_rows(shape);
  std::vector<float> largest(size_t(s.rows));
  pool().run(s.rows, [&](int64_t r) {
    std::vector<float> row(static_cast<size_t>(s.cols));
    read(r, row.data());
    for (const float v : row) largest[size_t(r)] = std::max(largest[size_t(r)], std::isnan(v) ? INFINITY : std::abs(v));
  });
  return *std::ranges::max_element(largest) > 65504 ? DType::f32 : DType::f16;
}

// Layers behind the last one hold the draft head; a tied head may be stored all the same; rotary tables are derived.
bool StoredWeights::may_be_ignored(std::string_view name) const {
  constexpr std::string_view layers = "model.layers.", padding = "padding.";
  if (name.ends_with("rotary_emb.inv_freq") || name.starts_with(padding)) return true;
  if (config_.tied_head && name == "lm_head.weight") return true;
  if (config_.draft_layers == 0 || !name.starts_with(layers)) return false;
  int64_t layer = -1;
  std::from_chars(name.data() + layers.size(), name.data() + name.size(), layer);
  return layer >= config_.layers && layer < config_.layers + config_.draft_layers;
}

void StoredWeights::check_extra() const {
  for (const auto& [name, tensor] : checkpoint_.tensors)
    if (!used_.contains(name) && !may_be_ignored(name))
      throw Error("tensor {} with shape {} is not part of this model: the configuration ({}, {} layers) has no place for it", name,
                  shape_text(tensor.shape), config_.family, config_.layers);
}

}  // namespace hadal
