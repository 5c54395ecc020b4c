#include "infer/adapter.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>
#include <span>

#include "core/error.h"
#include "core/random.h"
#include "model/adapter_config.h"
#include "model/safetensors.h"
#include "model/torch_bin.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

struct Pair {  // the two tensors of one linear layer
  const StoredTensor *down = nullptr, *up = nullptr;
};

std::string shape_text(const StoredTensor& t) {
  std::string text = "[";
  for (size_t i = 0; i < t.shape.size(); ++i) text += (i ? ", " : "") + std::to_string(t.shape[i]);
  return text + "]";
}

// Not mapped: while it is loaded somebody may be writing the next version over it, or cutting it short.
std::string read_file(const fs::path& path) {
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  in.seekg(0, std::ios::end);
  const std::streamoff size = in.tellg();
  if (!in || size < 0 || size > std::streamoff(1) << 40) throw Error("cannot read {}: {}", path.string(), std::strerror(errno));
  std::string bytes(size_t(size), '\0');
  in.seekg(0);
  in.read(bytes.data(), size);
  bytes.resize(size_t(in.gcount()));
  return bytes;
}

uint64_t fingerprint(std::string_view bytes, uint64_t seed) {
  uint64_t word = 0, hash = mix_bits(seed ^ bytes.size());
  for (size_t i = 0; i < bytes.size(); i += sizeof word) {
    word = 0;
    std::memcpy(&word, bytes.data() + i, std::min(sizeof word, bytes.size() - i));
    hash = mix_bits(hash ^ word);
  }
  return hash;
}

class Loader {
 public:
  Loader(const Model& model, const fs::path& folder) : model_(model), weights_(model.params) {
    const fs::path settings = folder / "adapter_config.json";
    const std::string config = read_file(settings);
    config_ = parse_adapter_config(config, settings.string());
    fs::path tensors = folder / "adapter_model.safetensors";
    std::error_code ignored;
    if (const fs::path old = folder / "adapter_model.bin"; !fs::exists(tensors, ignored) && fs::exists(old, ignored)) tensors = old;
    where_ = tensors.string();
    bytes_ = read_file(tensors);
    generation_ = std::max<uint64_t>(1, fingerprint(bytes_, fingerprint(config, 0)));
    const std::span<const std::byte> bytes = std::as_bytes(std::span(bytes_));
    tensors_ = tensors.extension() == ".bin" ? parse_torch_bin(bytes, where_) : parse_safetensors(bytes, where_);
  }

  std::shared_ptr<const Adapter> load(std::string name) {
    int64_t most = 0;
    for (const auto& [tensor, stored] : tensors_) {
      if (!stored.strides.empty()) throw Error("{}: {}: expected a tensor without gaps", where_, tensor);
      if (is_copy_of_the_base(tensor, stored)) continue;
      find_pair(tensor) = &stored;
      most += stored.count();
    }
    auto adapter = std::make_shared<Adapter>();
    adapter->name = std::move(name);
    adapter->generation = generation_;
    adapter->base = model_.params.embed.data;
    adapter->params = make_params<LowRank>(model_.config);
    adapter->values.reserve(size_t(most));
    std::vector<const std::byte*> data;
    for_each_param(model_.config, weights_, [&](const std::string&, Shape, Role, const Weight& w) { data.push_back(w.data); });
    size_t i = 0;
    for_each_param(model_.config, adapter->params, [&](const std::string& parameter, Shape shape, Role role, LowRank& w) {
      take(*adapter, parameter, shape, role, data[i++], w);
    });
    if (model_.config.tied_head)
      take(*adapter, "lm_head.weight", {model_.config.vocab, model_.config.dim}, Role::matrix, data[0], adapter->params.head);
    for (int64_t l = 0; l < model_.config.layers; ++l)
      if (auto* moe = std::get_if<Moe<LowRank>>(&adapter->params.blocks[size_t(l)].ffn)) take_fused(*adapter, l, *moe);
    for (const auto& [module, pair] : pairs_) throw Error("{}: {}: the model has no such linear layer", where_, module);
    if (adapter->matrices == 0) throw Error("{}: expected at least one pair of lora_A and lora_B, found none", where_);
    return adapter;
  }

 private:
  // Of base_model.model.MODULE.lora_A.weight; some files have the adapter's name in front of "weight".
  const StoredTensor*& find_pair(const std::string& tensor) {
    constexpr std::string_view start = "base_model.model.", end = "weight";
    if (tensor.find("lora_magnitude_vector") != tensor.npos) throw Error("{}: {}: DoRA is not supported", where_, tensor);
    if (tensor.find("lora_embedding_") != tensor.npos) throw Error("{}: {}: adapted embeddings are not supported", where_, tensor);
    const size_t down = tensor.rfind(".lora_A."), up = tensor.rfind(".lora_B."), at = down == tensor.npos ? up : down;
    const bool named = at != tensor.npos && tensor.starts_with(start) && at > start.size();
    const std::string_view rest = named ? std::string_view(tensor).substr(at + 8) : "";
    const bool whole = rest == end || (rest.ends_with(".weight") && rest.find('.') == rest.size() - 7);
    if (!whole)
      throw Error("{}: expected tensors called base_model.model.MODULE.lora_A.weight and .lora_B.weight, found {}", where_, tensor);
    Pair& pair = pairs_[tensor.substr(start.size(), at - start.size())];
    const StoredTensor*& place = down != tensor.npos ? pair.down : pair.up;
    if (place) throw Error("{}: {} is there twice", where_, tensor);
    return place;
  }

  // peft writes the whole matrix beside an adapted head. One that was trained as well would be lost here.
  bool is_copy_of_the_base(const std::string& tensor, const StoredTensor& t) const {
    constexpr const char* names[] = {"lm_head.base_layer.weight", "lm_head.weight", "model.embed_tokens.weight"};
    const auto* name = std::ranges::find_if(names, [&](const char* n) { return tensor == std::string("base_model.model.") + n; });
    if (name == std::end(names)) return false;
    const bool head = name != std::end(names) - 1 && !model_.config.tied_head;
    const Weight& own = head ? model_.params.head : model_.params.embed;
    check(t, tensor, {own.rows, own.cols});
    if (is_packed(own.dtype)) return true;
    std::vector<float> theirs(size_t(own.cols)), ours(size_t(own.cols));
    for (int64_t r = 0; r < own.rows; ++r) {
      to_f32(t, r * own.cols, own.cols, theirs.data());
      load_row(ours.data(), own.dtype, own.rows_from(r, 1).data, own.cols);
      for (size_t i = 0; i < ours.size(); ++i)
        if (std::abs(theirs[i] - ours[i]) > 0.02f * std::abs(ours[i]) + 1e-4f)
          throw Error("{}: {} differs from the model's in row {}: embeddings and heads trained whole are not supported", where_, tensor, r);
    }
    return true;
  }

  void take(Adapter& adapter, const std::string& parameter, Shape shape, Role role, const std::byte* data, LowRank& w) {
    if (!parameter.ends_with(".weight")) return;
    const std::string module = parameter.substr(0, parameter.size() - 7);
    const std::optional<Pair> pair = take_pair(module);
    if (!pair) return;
    if (role != Role::matrix) throw Error("{}: {}: expected a linear layer of attention, feed-forward or head", where_, module);
    const auto [down, up] = *pair;
    const int64_t rank = down->shape.empty() ? 0 : down->shape[0];
    check(*down, module + ".lora_A", {rank, shape.cols});
    check(*up, module + ".lora_B", {shape.rows, rank});
    const float scale = config_.scale_of(module, rank);
    w.down = append(adapter.values, *down, {rank, shape.cols}, module);
    w.up = append_transposed(adapter.values, *up, {shape.rows, rank}, scale, module);
    ++adapter.matrices;
    adapter.largest_rank = std::max(adapter.largest_rank, rank);
    const bool routed = module.find(".mlp.experts.") != module.npos;
    adapter.has_experts |= routed;
    if (!routed) adapter.by_weight[data] = w;
  }

  std::optional<Pair> take_pair(const std::string& module) {
    const auto at = pairs_.find(module);
    if (at == pairs_.end()) return std::nullopt;
    const Pair pair = at->second;
    if (!pair.down || !pair.up)
      throw Error("{}: {}: lora_{} is missing, lora_{} is there", where_, module, pair.down ? 'B' : 'A', pair.down ? 'A' : 'B');
    pairs_.erase(at);
    return pair;
  }

  // transformers keeps a layer's experts in two tensors, gate over up and down, and peft their products one inside the other, under names
  // that do not tell which is which: A is [experts * rank, in], B is [out, rank * experts] with an expert's columns `experts` apart.
  // Source: peft, ParamWrapper.get_delta_weight.
  void take_fused(Adapter& adapter, int64_t layer, Moe<LowRank>& moe) {
    const int64_t experts = model_.config.moe.experts, hidden = model_.config.moe.expert_dim, dim = model_.config.dim;
    for (const char* inner : {"", ".base_layer"}) {
      const std::string module = fmt::format("model.layers.{}.mlp.experts{}", layer, inner);
      const std::optional<Pair> pair = take_pair(module);
      if (!pair) continue;
      const auto [down, up] = *pair;
      const bool first = down->shape.size() == 2 && down->shape[1] == dim && up->shape.size() == 2 && up->shape[0] == 2 * hidden;
      const int64_t rows = down->shape.empty() ? 0 : down->shape[0], rank = rows / experts;
      check(*down, module + ".lora_A", {rank * experts, first ? dim : hidden});
      check(*up, module + ".lora_B", {first ? 2 * hidden : dim, rank * experts});
      const std::string parameter = fmt::format("model.layers.{}.mlp.experts.{}", layer, first ? "gate_up_proj" : "down_proj");
      const Mat<const float> a = append(adapter.values, *down, {rank * experts, down->shape[1]}, module);
      const Mat<const float> b =
          append_transposed(adapter.values, *up, {up->shape[0], rank * experts}, config_.scale_of(parameter, rank), module, experts);
      for (int64_t e = 0; e < experts; ++e) {
        const LowRank whole{a.rows_from(e * rank, rank), b.rows_from(e * rank, rank)};
        Mlp<LowRank>& expert = moe.experts[size_t(e)];
        if (first) {
          expert.gate = {whole.down, whole.up.cols_from(0, hidden)};
          expert.up = {whole.down, whole.up.cols_from(hidden, hidden)};
        } else {
          expert.down = whole;
        }
      }
      adapter.matrices += (first ? 2 : 1) * experts;
      adapter.largest_rank = std::max(adapter.largest_rank, rank);
      adapter.has_experts = true;
    }
  }

  void check(const StoredTensor& t, const std::string& name, Shape want) const {
    if (t.shape.size() != 2 || t.shape[0] != want.rows || t.shape[1] != want.cols || want.rows < 1 || want.cols < 1)
      throw Error("{}: {}: expected shape [{}, {}] for this model, found {}", where_, name, want.rows, want.cols, shape_text(t));
    if (t.dtype != DType::f32 && t.dtype != DType::f16 && t.dtype != DType::bf16)
      throw Error("{}: {}: expected F32, F16 or BF16, found {}", where_, name, name_of(t.dtype));
  }

  Mat<const float> append(std::vector<float>& values, const StoredTensor& t, Shape shape, const std::string& name) const {
    const size_t first = values.size();
    values.resize(first + size_t(t.count()));
    to_f32(t, 0, t.count(), values.data() + first);
    for (size_t i = first; i < values.size(); ++i)
      if (!std::isfinite(values[i])) throw Error("{}: {}: expected finite numbers, found {}", where_, name, values[i]);
    return {values.data() + first, shape.rows, shape.cols, shape.cols};
  }

  // [out, rank] to [rank, out], times the scale, in the order of rows that the model's own matrix has. Every `step`th column belongs
  // together and becomes a block of rows.
  Mat<const float> append_transposed(std::vector<float>& values, const StoredTensor& t, Shape shape, float scale, const std::string& name,
                                     int64_t step = 1) const {
    std::vector<float> published;
    append(published, t, shape, name);
    const size_t first = values.size();
    values.resize(first + published.size());
    for (int64_t row = 0; row < shape.rows; ++row)
      for (int64_t j = 0; j < shape.cols; ++j)
        values[first + size_t((j % step * (shape.cols / step) + j / step) * shape.rows + stored_row(name, row))] =
            published[size_t(row * shape.cols + j)] * scale;
    return {values.data() + first, shape.cols, shape.rows, shape.rows};
  }

  // Some GGUF files keep each head's two halves of queries and keys interleaved; adapters are published for the other order.
  int64_t stored_row(const std::string& module, int64_t row) const {
    const ModelConfig& c = model_.config;
    const bool interleaved = c.attention == AttentionKind::gqa && c.rope.layout == RopeLayout::pairs &&
                             (module.ends_with("q_proj") || module.ends_with("k_proj"));
    if (!interleaved) return row;
    const int64_t half = c.head_dim / 2, i = row % c.head_dim;
    return row - i + 2 * (i % half) + i / half;
  }

  const Model& model_;
  Params<Weight> weights_;
  AdapterConfig config_;
  std::string where_;
  std::string bytes_;
  uint64_t generation_ = 0;
  std::map<std::string, StoredTensor> tensors_;
  std::map<std::string, Pair> pairs_;  // by module, those that nothing has asked for yet
};

}  // namespace

std::shared_ptr<const Adapter> load_adapter(const Model& model, const fs::path& folder, std::string name) {
  return Loader(model, folder).load(std::move(name));
}

}  // namespace hadal
