// From a checkpoint to a model. Packed matrices and those of f32, f16 and bf16 are used where they are mapped. Everything else is expanded
// once: vectors and routers to f32; FP8 and GGUF blocks to f16, whose 11 bits hold a 4- or 8-bit code times its scale to 1 part in 2,000
// (bf16's 8 do not), or to f32 where a value is beyond f16's range. A recipe packs or converts matrices on the way.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/pool.h"
#include "infer/arena.h"
#include "infer/model.h"
#include "infer/stored_weights.h"

namespace hadal {
namespace {

bool usable_in_place(const StoredTensor& t) {
  if (t.dtype != DType::f32 && t.dtype != DType::f16 && t.dtype != DType::bf16) return false;
  return t.strides.empty() && reinterpret_cast<uintptr_t>(t.data) % size_t(info_of(t.dtype).block_bytes) == 0;
}

class Loader {
 public:
  Loader(const ModelConfig& config, const Checkpoint& checkpoint, const LoadOptions& options)
      : config_(config), checkpoint_(checkpoint), options_(options), stored_(config, checkpoint) {}

  Model load() {
    Model model{.config = config_,
                .params = make_params<Weight>(config_),
                .k_up_t = {},
                .rope_frequency = rope_frequencies(config_),
                .bytes = {},
                .files = {},
                .experts = {}};
    for_each_param(config_, model.params, [&](const std::string&, Shape shape, Role, Weight&) { values_ += shape.rows * shape.cols; });
    for_each_param(config_, model.params, [&](const std::string& name, Shape shape, Role role, Weight& w) {
      w = weight(name, shape, role);
      done_ += shape.rows * shape.cols;
      if (options_.progress) options_.progress(done_, values_);
    });
    stored_.check_extra();
    if (config_.attention == AttentionKind::mla) {
      for (const auto& block : model.params.blocks) model.k_up_t.push_back(transpose_keys(std::get<Mla<Weight>>(block.attn).kv_up));
      for (const auto& draft : model.params.drafts) model.k_up_t.push_back(transpose_keys(std::get<Mla<Weight>>(draft.block.attn).kv_up));
    }
    model.bytes = checkpoint_.bytes;
    model.files = checkpoint_.files;
    model.bytes.insert(model.bytes.end(), arena_.buffers().begin(), arena_.buffers().end());
    return model;
  }

 private:
  Weight weight(const std::string& name, Shape shape, Role role) {
    const bool matrix = role == Role::matrix || role == Role::embedding;
    if (matrix && stored_.is_packed(name)) {
      if (options_.recipe.weights) throw Error("tensor {} is packed already: weights are packed from 16 or 32 bits, not from fewer", name);
      return stored_.packed(name, shape, options_.experts_on_disk && name.find(".mlp.experts.") != name.npos);
    }
    const StoredTensor& t = stored_.find(name, shape);
    const std::optional<DType> wanted = options_.recipe.type_of(config_, name, role);
    if (wanted && is_packed(*wanted)) {
      const PackedMemory memory = arena_.take_packed(*wanted, shape.rows, shape.cols);
      pack_matrix(*wanted, shape.rows, shape.cols, stored_.rows(name, shape), memory, name);
      return weight_of(*wanted, shape.rows, shape.cols, memory);
    }
    const DType type = !matrix ? DType::f32 : wanted ? *wanted : stored_.plain_type(name, shape);
    if (usable_in_place(t) && t.dtype == type) return {t.dtype, shape.rows, shape.cols, t.data};
    return expand(name, shape, type);
  }

  // One chunk of rows per task; a task holds one row of floats.
  Weight expand(const std::string& name, Shape shape, DType to) {
    const ReadRow read = stored_.rows(name, shape);
    const Shape s = shape.cols == 1 ? Shape{1, shape.rows} : shape;
    const int64_t step = std::max<int64_t>(1, (64 << 10) / s.cols);
    std::byte* out = arena_.take(bytes_of(to, s.rows * s.cols));
    pool().run((s.rows + step - 1) / step, [&](int64_t task) {
      std::vector<float> row(static_cast<size_t>(s.cols));
      for (int64_t r = task * step; r < std::min(s.rows, (task + 1) * step); ++r) {
        read(r, row.data());
        convert_row(row, to, out + bytes_of(to, r * s.cols));
      }
    });
    return {to, shape.rows, shape.cols, out};
  }

  // kv_up holds per head nope_dim key rows, then v_dim value rows; this is the key half with rows and columns exchanged.
  Weight transpose_keys(const Weight& kv_up) {
    const ModelConfig& c = config_;
    const int64_t rows = c.heads * c.kv_rank, head_rows = c.nope_dim + c.v_dim;
    if (is_packed(kv_up.dtype)) {  // as w8 whatever kv_up is: rounded twice, the second time finely
      std::vector<float> keys(static_cast<size_t>(rows * c.nope_dim));
      pool().run(c.heads, [&](int64_t head) {
        std::vector<float> row(static_cast<size_t>(c.kv_rank));
        for (int64_t j = 0; j < c.nope_dim; ++j) {
          values_of(unpack_row(kv_up, head * head_rows + j), kv_up, row.data());
          for (int64_t i = 0; i < c.kv_rank; ++i) keys[size_t((head * c.kv_rank + i) * c.nope_dim + j)] = row[size_t(i)];
        }
      });
      const PackedMemory memory = arena_.take_packed(DType::w8, rows, c.nope_dim);
      const auto read = [&](int64_t row, float* out) { std::copy_n(keys.data() + row * c.nope_dim, c.nope_dim, out); };
      pack_matrix(DType::w8, rows, c.nope_dim, read, memory, "kv_b_proj, transposed");
      return weight_of(DType::w8, rows, c.nope_dim, memory);
    }
    const int64_t size = info_of(kv_up.dtype).block_bytes;
    std::byte* out = arena_.take(rows * c.nope_dim * size);
    pool().run(c.heads, [&](int64_t head) {
      for (int64_t i = 0; i < c.kv_rank; ++i)
        for (int64_t j = 0; j < c.nope_dim; ++j)
          std::copy_n(kv_up.data + ((head * head_rows + j) * c.kv_rank + i) * size, size,
                      out + ((head * c.kv_rank + i) * c.nope_dim + j) * size);
    });
    return {kv_up.dtype, rows, c.nope_dim, out};
  }

  const ModelConfig& config_;
  const Checkpoint& checkpoint_;
  const LoadOptions& options_;
  StoredWeights stored_;
  Arena arena_;
  int64_t values_ = 0, done_ = 0;
};

}  // namespace

bool has_draft_layer(const ModelConfig& config, const Checkpoint& checkpoint) {
  return config.draft_layers > 0 && checkpoint.tensors.contains(fmt::format("model.layers.{}.eh_proj.weight", config.layers));
}

Model load_model(const ModelConfig& config, const Checkpoint& checkpoint, const LoadOptions& options) {
  if (config.moe.expert_choice)
    throw Error(
        "topk_method: expected a router whose choice for a token depends on that token alone, found expert_choice, which is for training");
  return Loader(config, checkpoint, options).load();
}

}  // namespace hadal
