// Names of the llama, qwen2, qwen3, deepseek and deepseek2 architectures. Source: gguf-py's constants.py and tensor_mapping.py.
#include "model/gguf_names.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "core/error.h"
#include "core/memory.h"

namespace hadal {
namespace {

constexpr int64_t most_experts = 65536;

struct Pair {
  std::string_view gguf, published;
};
constexpr Pair whole_names[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};
constexpr Pair block_names[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"attn_q_a", "self_attn.q_a_proj"},
    {"attn_q_a_norm", "self_attn.q_a_layernorm"},
    {"attn_q_b", "self_attn.q_b_proj"},
    {"attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"},
    {"attn_kv_a_norm", "self_attn.kv_a_layernorm"},
    {"attn_kv_b", "self_attn.kv_b_proj"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"ffn_gate_inp", "mlp.gate"},
    {"ffn_gate_shexp", "mlp.shared_experts.gate_proj"},
    {"ffn_up_shexp", "mlp.shared_experts.up_proj"},
    {"ffn_down_shexp", "mlp.shared_experts.down_proj"},
};
constexpr Pair expert_names[] = {
    {"ffn_gate_exps.weight", "gate_proj.weight"},
    {"ffn_up_exps.weight", "up_proj.weight"},
    {"ffn_down_exps.weight", "down_proj.weight"},
};

template <size_t n>
std::string_view find(const Pair (&names)[n], std::string_view gguf) {
  for (const Pair& p : names)
    if (p.gguf == gguf) return p.published;
  return {};
}

struct BlockName {
  std::string layer;      // "model.layers.7."
  std::string_view rest;  // what stands behind "blk.7."
};
std::optional<BlockName> split_block(std::string_view name) {
  constexpr std::string_view start = "blk.";
  if (!name.starts_with(start)) return std::nullopt;
  name.remove_prefix(start.size());
  const size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
  if (digits == 0 || digits == name.size() || name[digits] != '.') return std::nullopt;
  return BlockName{"model.layers." + std::string(name.substr(0, digits)) + ".", name.substr(digits + 1)};
}

void add(Checkpoint& to, const std::string& name, StoredTensor tensor, const std::string& where) {
  if (!to.tensors.try_emplace(name, std::move(tensor)).second) throw Error("{}: two tensors become {}", where, name);
}

// [experts, out, in] as one [out, in] per expert, in place.
void add_experts(Checkpoint& to, const std::string& layer, std::string_view leaf, const std::string& name, const StoredTensor& stack,
                 const std::string& where) {
  if (stack.shape.size() != 3 || stack.shape[0] > most_experts)
    throw Error("{}: tensor {}: expected a shape of [experts, out, in] with at most {} experts, found {} sides, the first {}", where, name,
                most_experts, stack.shape.size(), stack.shape.empty() ? 1 : stack.shape[0]);
  const size_t bytes = stack.bytes / size_t(stack.shape[0]);
  for (int64_t e = 0; e < stack.shape[0]; ++e) {
    StoredTensor expert{stack.dtype, {stack.shape[1], stack.shape[2]}, {}, stack.data + size_t(e) * bytes, bytes};
    add(to, layer + "mlp.experts." + std::to_string(e) + "." + std::string(leaf), std::move(expert), where);
  }
}

StoredTensor as_f32(const StoredTensor& tensor, Buffer& into) {
  into = Buffer(size_t(tensor.count()) * sizeof(float), "a weight matrix of a GGUF file");
  to_f32(tensor, 0, tensor.count(), into.as<float>());
  return {DType::f32, tensor.shape, {}, into.data(), into.size()};
}

// k [heads, rank, nope] and v [heads, v, rank] as kv_b_proj [heads * (nope + v), rank], each head's rows being [k | v].
void add_joined_kv(Checkpoint& to, const std::string& layer, StoredTensor k, StoredTensor v, const std::string& where) {
  if (k.shape.size() != 3 || v.shape.size() != 3 || k.shape[0] != v.shape[0] || k.shape[1] != v.shape[2])
    throw Error("{}: {}: expected attn_k_b of [heads, rank, nope] and attn_v_b of [heads, v, rank]", where, layer);
  Buffer k_values, v_values;
  if (k.dtype != v.dtype || info_of(k.dtype).block_values != 1) {
    k = as_f32(k, k_values);
    v = as_f32(v, v_values);
  }
  const int64_t heads = k.shape[0], rank = k.shape[1], nope = k.shape[2], v_dim = v.shape[1];
  const auto joined = std::make_shared<Buffer>(k.bytes + v.bytes, "kv_b_proj of a GGUF file");
  const size_t size = size_t(info_of(k.dtype).block_bytes), v_bytes = v.bytes / size_t(heads);
  std::byte* out = joined->data();
  for (int64_t h = 0; h < heads; ++h) {
    const std::byte* head = k.data + size_t(h * rank * nope) * size;
    for (int64_t n = 0; n < nope; ++n)
      for (int64_t r = 0; r < rank; ++r, out += size) std::memcpy(out, head + size_t(r * nope + n) * size, size);
    std::memcpy(out, v.data + size_t(h) * v_bytes, v_bytes);
    out += v_bytes;
  }
  add(to, layer + "self_attn.kv_b_proj.weight", {k.dtype, {heads * (nope + v_dim), rank}, {}, joined->data(), joined->size()}, where);
  to.bytes.push_back(joined);
}

bool is_rope_table(std::string_view rest) { return rest == "rope_freqs.weight" || rest == "attn_rot_embd.weight"; }

void add_block_tensor(Checkpoint& to, const BlockName& block, const std::string& name, const std::map<std::string, StoredTensor>& stored,
                      const std::string& where) {
  const StoredTensor& tensor = stored.at(name);
  const std::string start = name.substr(0, name.size() - block.rest.size());  // "blk.7."
  if (is_rope_table(block.rest)) return;
  if (const auto leaf = find(expert_names, block.rest); !leaf.empty()) return add_experts(to, block.layer, leaf, name, tensor, where);
  if (block.rest == "attn_k_b.weight" || block.rest == "attn_v_b.weight") {
    const auto k = stored.find(start + "attn_k_b.weight"), v = stored.find(start + "attn_v_b.weight");
    if (stored.contains(start + "attn_kv_b.weight")) return;  // some files carry the halves beside the whole
    if (k == stored.end() || v == stored.end())
      throw Error("{}: {}: expected attn_k_b and attn_v_b together, found one of them", where, name);
    if (block.rest == "attn_k_b.weight") add_joined_kv(to, block.layer, k->second, v->second, where);
    return;
  }
  add(to, published_name(name), tensor, where);
}

}  // namespace

std::string published_name(std::string_view gguf_name) {
  if (const auto whole = find(whole_names, gguf_name); !whole.empty()) return std::string(whole);
  const auto block = split_block(gguf_name);
  if (!block) return std::string(gguf_name);
  if (block->rest == "exp_probs_b.bias" || block->rest == "exp_probs_b") return block->layer + "mlp.gate.e_score_correction_bias";
  const size_t dot = block->rest.rfind('.');
  if (dot == std::string_view::npos) return std::string(gguf_name);
  const std::string_view part = find(block_names, block->rest.substr(0, dot)), leaf = block->rest.substr(dot);
  if (part.empty() || (leaf != ".weight" && leaf != ".bias")) return std::string(gguf_name);
  return block->layer + std::string(part) + std::string(leaf);
}

Checkpoint published_checkpoint(const std::map<std::string, StoredTensor>& stored, const std::string& where) {
  Checkpoint checkpoint;
  for (const auto& [name, tensor] : stored) {
    if (is_rope_table(name)) continue;
    if (const auto block = split_block(name)) {
      add_block_tensor(checkpoint, *block, name, stored, where);
    } else {
      add(checkpoint, published_name(name), tensor, where);
    }
  }
  return checkpoint;
}

}  // namespace hadal
