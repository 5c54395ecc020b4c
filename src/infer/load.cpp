// From a checkpoint to a model. Matrices of f32, f16 and bf16 are used where they are mapped. Everything else is expanded once: vectors and
// routers to f32; FP8 and GGUF blocks to f16, whose 11 bits hold a 4- or 8-bit code times its scale to 1 part in 2,000 (bf16's 8 do not),
// or to f32 where a value is beyond f16's range.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <string_view>

#include "core/error.h"
#include "core/pool.h"
#include "core/random.h"
#include "infer/model.h"

namespace hadal {
namespace {

class Arena {  // memory of the expanded weights: a few big buffers, each piece on its own cache lines
 public:
  std::byte* take(int64_t bytes) {
    const size_t rounded = (size_t(bytes) + 63) / 64 * 64;
    if (used_ + rounded > size_) {
      size_ = std::max(rounded, size_t(32) << 20);
      auto buffer = std::make_shared<Buffer>(size_, "the weights");
      base_ = buffer->data();
      used_ = 0;
      buffers_.push_back(std::move(buffer));
    }
    std::byte* at = base_ + used_;
    used_ += rounded;
    return at;
  }
  const std::vector<std::shared_ptr<const void>>& buffers() const { return buffers_; }

 private:
  std::byte* base_ = nullptr;
  size_t used_ = 0, size_ = 0;
  std::vector<std::shared_ptr<const void>> buffers_;
};

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

bool has_shape(const StoredTensor& t, Shape want) {
  if (t.shape.size() == 1) return want.cols == 1 && t.shape[0] == want.rows;
  return t.shape.size() == 2 && t.shape[0] == want.rows && t.shape[1] == want.cols;
}

bool usable_in_place(const StoredTensor& t) {
  if (t.dtype != DType::f32 && t.dtype != DType::f16 && t.dtype != DType::bf16) return false;
  return t.strides.empty() && reinterpret_cast<uintptr_t>(t.data) % size_t(info_of(t.dtype).block_bytes) == 0;
}

struct BlockScale {  // of an FP8 matrix: one factor per block of rows and columns
  std::vector<float> factors;
  int64_t block_rows = 1, block_cols = 1, per_row = 0;
};

// Row `row` of a stored matrix as floats.
void read_row(const StoredTensor& t, int64_t row, int64_t cols, const BlockScale* scale, float* out) {
  to_f32(t, row * cols, cols, out);
  if (!scale) return;
  const float* factor = scale->factors.data() + row / scale->block_rows * scale->per_row;
  for (int64_t i = 0; i < cols; ++i) out[i] *= factor[i / scale->block_cols];
}

class Loader {
 public:
  Loader(const ModelConfig& config, const Checkpoint& checkpoint) : config_(config), checkpoint_(checkpoint) {}

  Model load() {
    Model model{.config = config_,
                .params = make_params<Weight>(config_),
                .k_up_t = {},
                .rope_frequency = rope_frequencies(config_),
                .bytes = {},
                .files = {},
                .experts = {}};
    for_each_param(config_, model.params,
                   [&](const std::string& name, Shape shape, Role role, Weight& w) { w = weight(name, shape, role); });
    check_extra();
    if (config_.attention == AttentionKind::mla)
      for (const auto& block : model.params.blocks) model.k_up_t.push_back(transpose_keys(std::get<Mla<Weight>>(block.attn).kv_up));
    model.bytes = checkpoint_.bytes;
    model.files = checkpoint_.files;
    model.bytes.insert(model.bytes.end(), arena_.buffers().begin(), arena_.buffers().end());
    return model;
  }

 private:
  const StoredTensor& find(const std::string& name, Shape shape) {
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

  Weight weight(const std::string& name, Shape shape, Role role) {
    const StoredTensor& t = find(name, shape);
    const bool matrix = role == Role::matrix || role == Role::embedding;
    if (usable_in_place(t) && (matrix || t.dtype == DType::f32)) return {t.dtype, shape.rows, shape.cols, t.data};
    const BlockScale scale = t.dtype == DType::f8e4m3 ? block_scale(name, shape) : BlockScale{};
    const BlockScale* scaled = scale.factors.empty() ? nullptr : &scale;
    if (!matrix) return expand<float>(t, shape, scaled, DType::f32, [](float v) { return v; });
    if (t.dtype == DType::bf16) return expand<bf16>(t, shape, scaled, DType::bf16, f32_to_bf16);
    if (t.dtype == DType::f32 || largest(t, shape, scaled) > 65504)
      return expand<float>(t, shape, scaled, DType::f32, [](float v) { return v; });
    return expand<f16>(t, shape, scaled, DType::f16, f32_to_f16);
  }

  // One chunk of rows per task; a task holds one row of floats.
  template <class Row>
  void over_rows(const StoredTensor& t, Shape shape, const BlockScale* scale, Row&& use) {
    const int64_t step = std::max<int64_t>(1, (64 << 10) / shape.cols);
    // A vector is one row of values for the blocked types, whose blocks must not be cut.
    const Shape s = shape.cols == 1 ? Shape{1, shape.rows} : shape;
    pool().run((s.rows + step - 1) / step, [&](int64_t task) {
      std::vector<float> row(size_t(s.cols));
      for (int64_t r = task * step; r < std::min(s.rows, (task + 1) * step); ++r) {
        read_row(t, r, s.cols, scale, row.data());
        use(r, std::span<const float>(row));
      }
    });
  }

  template <class T, class Convert>
  Weight expand(const StoredTensor& t, Shape shape, const BlockScale* scale, DType to, Convert convert) {
    T* out = reinterpret_cast<T*>(arena_.take(bytes_of(to, shape.rows * shape.cols)));
    over_rows(t, shape, scale,
              [&](int64_t r, std::span<const float> row) { std::ranges::transform(row, out + r * int64_t(row.size()), convert); });
    return {to, shape.rows, shape.cols, reinterpret_cast<const std::byte*>(out)};
  }

  float largest(const StoredTensor& t, Shape shape, const BlockScale* scale) {
    if (info_of(t.dtype).block_values == 1 && t.dtype != DType::f8e4m3) return 0;
    std::vector<float> of_row(size_t(shape.cols == 1 ? 1 : shape.rows));
    over_rows(t, shape, scale, [&](int64_t r, std::span<const float> row) {
      for (const float v : row) of_row[size_t(r)] = std::max(of_row[size_t(r)], std::isnan(v) ? 1e30f : std::abs(v));
    });
    return *std::ranges::max_element(of_row);
  }

  BlockScale block_scale(const std::string& name, Shape shape) {
    const Fp8Config& fp8 = config_.fp8;
    BlockScale s{{}, fp8.block_rows, fp8.block_cols, (shape.cols + fp8.block_cols - 1) / fp8.block_cols};
    const Shape want{(shape.rows + s.block_rows - 1) / s.block_rows, s.per_row};
    const StoredTensor& t = find(name + "_scale_inv", want);
    s.factors.resize(size_t(want.rows * want.cols));
    for (int64_t r = 0; r < want.rows; ++r) read_row(t, r, want.cols, nullptr, s.factors.data() + r * want.cols);
    return s;
  }

  // Layers behind the last one hold the draft head; a tied head may be stored all the same; rotary tables are derived.
  bool may_be_ignored(std::string_view name) const {
    constexpr std::string_view layers = "model.layers.";
    if (name.ends_with("rotary_emb.inv_freq")) return true;
    if (config_.tied_head && name == "lm_head.weight") return true;
    if (config_.draft_layers == 0 || !name.starts_with(layers)) return false;
    int64_t layer = -1;
    std::from_chars(name.data() + layers.size(), name.data() + name.size(), layer);
    return layer >= config_.layers && layer < config_.layers + config_.draft_layers;
  }

  void check_extra() const {
    for (const auto& [name, tensor] : checkpoint_.tensors)
      if (!used_.contains(name) && !may_be_ignored(name))
        throw Error("tensor {} with shape {} is not part of this model: the configuration ({}, {} layers) has no place for it", name,
                    shape_text(tensor.shape), config_.family, config_.layers);
  }

  // kv_up holds per head nope_dim key rows, then v_dim value rows; this is the key half with rows and columns exchanged.
  Weight transpose_keys(const Weight& kv_up) {
    const ModelConfig& c = config_;
    const int64_t size = info_of(kv_up.dtype).block_bytes;
    std::byte* out = arena_.take(c.heads * c.kv_rank * c.nope_dim * size);
    pool().run(c.heads, [&](int64_t head) {
      for (int64_t i = 0; i < c.kv_rank; ++i)
        for (int64_t j = 0; j < c.nope_dim; ++j)
          std::copy_n(kv_up.data + ((head * (c.nope_dim + c.v_dim) + j) * c.kv_rank + i) * size, size,
                      out + ((head * c.kv_rank + i) * c.nope_dim + j) * size);
    });
    return {kv_up.dtype, c.heads * c.kv_rank, c.nope_dim, out};
  }

  const ModelConfig& config_;
  const Checkpoint& checkpoint_;
  Arena arena_;
  std::set<std::string> used_;
};

}  // namespace

Model load_model(const ModelConfig& config, const Checkpoint& checkpoint) { return Loader(config, checkpoint).load(); }

Model random_model(const ModelConfig& config, DType type, uint64_t seed) {
  CHECK(type == DType::f32 || type == DType::bf16);
  Checkpoint made;
  Params<Weight> params = make_params<Weight>(config);
  int64_t bytes = 0;
  for_each_param(config, params, [&](const std::string&, Shape shape, Role role, Weight&) {
    bytes += (bytes_of(role == Role::matrix || role == Role::embedding ? type : DType::f32, shape.rows * shape.cols) + 63) / 64 * 64;
  });
  auto storage = std::make_shared<Buffer>(size_t(bytes), "random weights");
  std::byte* next = storage->data();
  for_each_param(config, params, [&](const std::string& name, Shape shape, Role role, Weight&) {
    const DType stored = role == Role::matrix || role == Role::embedding ? type : DType::f32;
    const int64_t count = shape.rows * shape.cols;
    // Uniform with the deviation 1 / sqrt(inputs): activations keep their size from layer to layer.
    const float amplitude = role == Role::bias ? 0.f : std::sqrt(3.f / float(shape.cols)), centre = role == Role::norm ? 1.f : 0.f;
    pool().run((count + 65535) / 65536, [&](int64_t task) {
      for (int64_t i = task * 65536; i < std::min(count, (task + 1) * 65536); ++i) {
        const float unit = float(int64_t(mix_bits(seed ^ uint64_t(i)) >> 40)) * 0x1p-23f - 1.f;
        const float value = role == Role::norm ? centre : amplitude * unit;
        if (stored == DType::f32)
          reinterpret_cast<float*>(next)[i] = value;
        else
          reinterpret_cast<bf16*>(next)[i] = f32_to_bf16(value);
      }
    });
    std::vector<int64_t> dims = shape.cols == 1 ? std::vector{shape.rows} : std::vector{shape.rows, shape.cols};
    made.tensors[name] = {stored, std::move(dims), {}, next, size_t(bytes_of(stored, count))};
    next += (bytes_of(stored, count) + 63) / 64 * 64;
    seed = mix_bits(seed);
  });
  made.bytes.push_back(std::move(storage));
  return load_model(config, made);
}

}  // namespace hadal
