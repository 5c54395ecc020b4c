// The parameters of every model of the family, listed once: name, shape, role.
// P is Weight in the engine, torch::Tensor in training, and whatever a tool needs.
#pragma once
#include <string>
#include <variant>
#include <vector>

#include "model/config.h"

namespace hadal {

// clang-format off
template <class P> struct Indexer { P q_up, key, key_norm, key_norm_bias, head_weights; };
template <class P> struct Gqa { P q, k, v, o, q_bias, k_bias, v_bias, o_bias, q_norm, k_norm; };
template <class P> struct Mla { P q, q_down, q_norm, q_up, kv_down, kv_norm, kv_up, o; Indexer<P> indexer; };
template <class P> struct Mlp { P gate, up, down; };
template <class P> struct Moe { P router, bias; std::vector<Mlp<P>> experts; Mlp<P> shared; };
template <class P> struct Block {
  P attn_norm, ffn_norm;
  std::variant<Gqa<P>, Mla<P>> attn;  // the two axes of variation: 2 x 2 covers the family
  std::variant<Mlp<P>, Moe<P>> ffn;
};
// From a position's hidden state and the next token to a guess at the one after it (DeepSeek-V3, 2.2); embedding and head are the model's.
template <class P> struct Draft { P token_norm, hidden_norm, joint, norm; Block<P> block; };
template <class P> struct Params { P embed, norm, head; std::vector<Block<P>> blocks; std::vector<Draft<P>> drafts; };
// clang-format on

enum class Role { embedding, matrix, norm, router, bias };  // decides init, decay, quantization
struct Shape {
  int64_t rows = 0, cols = 1;  // a vector has one column
};

template <class P, class F>
void for_each_param(const ModelConfig& c, Gqa<P>& a, const std::string& at, F& f) {
  const int64_t q_rows = c.heads * c.head_dim, kv_rows = c.kv_heads * c.head_dim;
  f(at + "q_proj.weight", Shape{q_rows, c.dim}, Role::matrix, a.q);
  f(at + "k_proj.weight", Shape{kv_rows, c.dim}, Role::matrix, a.k);
  f(at + "v_proj.weight", Shape{kv_rows, c.dim}, Role::matrix, a.v);
  f(at + "o_proj.weight", Shape{c.dim, q_rows}, Role::matrix, a.o);
  if (c.qkv_bias) {
    f(at + "q_proj.bias", Shape{q_rows}, Role::bias, a.q_bias);
    f(at + "k_proj.bias", Shape{kv_rows}, Role::bias, a.k_bias);
    f(at + "v_proj.bias", Shape{kv_rows}, Role::bias, a.v_bias);
  }
  if (c.out_bias) f(at + "o_proj.bias", Shape{c.dim}, Role::bias, a.o_bias);
  if (c.qk_norm) {
    f(at + "q_norm.weight", Shape{c.head_dim}, Role::norm, a.q_norm);
    f(at + "k_norm.weight", Shape{c.head_dim}, Role::norm, a.k_norm);
  }
}

template <class P, class F>
void for_each_param(const ModelConfig& c, Indexer<P>& i, const std::string& at, F& f) {
  f(at + "wq_b.weight", Shape{c.indexer.heads * c.indexer.dim, c.q_rank}, Role::matrix, i.q_up);
  f(at + "wk.weight", Shape{c.indexer.dim, c.dim}, Role::matrix, i.key);
  f(at + "k_norm.weight", Shape{c.indexer.dim}, Role::norm, i.key_norm);
  f(at + "k_norm.bias", Shape{c.indexer.dim}, Role::bias, i.key_norm_bias);
  f(at + "weights_proj.weight", Shape{c.indexer.heads, c.dim}, Role::matrix, i.head_weights);
}

template <class P, class F>
void for_each_param(const ModelConfig& c, Mla<P>& a, const std::string& at, F& f) {
  if (c.q_rank == 0) {
    f(at + "q_proj.weight", Shape{c.heads * c.q_dim(), c.dim}, Role::matrix, a.q);
  } else {
    f(at + "q_a_proj.weight", Shape{c.q_rank, c.dim}, Role::matrix, a.q_down);
    f(at + "q_a_layernorm.weight", Shape{c.q_rank}, Role::norm, a.q_norm);
    f(at + "q_b_proj.weight", Shape{c.heads * c.q_dim(), c.q_rank}, Role::matrix, a.q_up);
  }
  f(at + "kv_a_proj_with_mqa.weight", Shape{c.kv_rank + c.rope_dim, c.dim}, Role::matrix, a.kv_down);
  f(at + "kv_a_layernorm.weight", Shape{c.kv_rank}, Role::norm, a.kv_norm);
  f(at + "kv_b_proj.weight", Shape{c.heads * (c.nope_dim + c.v_dim), c.kv_rank}, Role::matrix, a.kv_up);
  f(at + "o_proj.weight", Shape{c.dim, c.heads * c.v_dim}, Role::matrix, a.o);
  if (c.indexer.heads > 0) for_each_param(c, a.indexer, at + "indexer.", f);
}

template <class P, class F>
void for_each_param(const ModelConfig& c, Mlp<P>& m, int64_t hidden, const std::string& at, F& f) {
  f(at + "gate_proj.weight", Shape{hidden, c.dim}, Role::matrix, m.gate);
  f(at + "up_proj.weight", Shape{hidden, c.dim}, Role::matrix, m.up);
  f(at + "down_proj.weight", Shape{c.dim, hidden}, Role::matrix, m.down);
}

template <class P, class F>
void for_each_param(const ModelConfig& c, Mlp<P>& m, const std::string& at, F& f) {
  for_each_param(c, m, c.ffn_dim, at, f);
}

template <class P, class F>
void for_each_param(const ModelConfig& c, Moe<P>& m, const std::string& at, F& f) {
  f(at + "gate.weight", Shape{c.moe.experts, c.dim}, Role::router, m.router);
  if (c.moe.bias) f(at + "gate.e_score_correction_bias", Shape{c.moe.experts}, Role::bias, m.bias);
  for (int64_t e = 0; e < c.moe.experts; ++e)
    for_each_param(c, m.experts[e], c.moe.expert_dim, at + "experts." + std::to_string(e) + ".", f);
  if (c.moe.shared > 0) for_each_param(c, m.shared, c.moe.shared * c.moe.expert_dim, at + "shared_experts.", f);
}

// The structure for `c`: which attention, which feed-forward, how many experts.
template <class P>
Params<P> make_params(const ModelConfig& c) {
  const auto make = [&](Block<P>& block, int64_t layer) {
    if (c.attention == AttentionKind::mla) block.attn.template emplace<Mla<P>>();
    if (c.is_moe(layer)) block.ffn.template emplace<Moe<P>>().experts.resize(size_t(c.moe.experts));
  };
  Params<P> p;
  p.blocks.resize(size_t(c.layers));
  for (int64_t l = 0; l < c.layers; ++l) make(p.blocks[size_t(l)], l);
  p.drafts.resize(c.load_draft ? 1 : 0);
  for (Draft<P>& draft : p.drafts) make(draft.block, c.layers);
  return p;
}

template <class P, class F>
void for_each_param(const ModelConfig& c, Block<P>& b, const std::string& at, F& f) {
  f(at + "input_layernorm.weight", Shape{c.dim}, Role::norm, b.attn_norm);
  std::visit([&](auto& a) { for_each_param(c, a, at + "self_attn.", f); }, b.attn);
  f(at + "post_attention_layernorm.weight", Shape{c.dim}, Role::norm, b.ffn_norm);
  std::visit([&](auto& n) { for_each_param(c, n, at + "mlp.", f); }, b.ffn);
}

// Calls f(name, shape, role, param) for every parameter, in checkpoint order. A tied head is no parameter of its own.
template <class P, class F>
void for_each_param(const ModelConfig& c, Params<P>& p, F f) {
  f("model.embed_tokens.weight", Shape{c.vocab, c.dim}, Role::embedding, p.embed);
  const auto at = [](int64_t layer) { return "model.layers." + std::to_string(layer) + "."; };
  for (int64_t l = 0; l < c.layers; ++l) for_each_param(c, p.blocks[size_t(l)], at(l), f);
  for (Draft<P>& d : p.drafts) {
    f(at(c.layers) + "enorm.weight", Shape{c.dim}, Role::norm, d.token_norm);
    f(at(c.layers) + "hnorm.weight", Shape{c.dim}, Role::norm, d.hidden_norm);
    f(at(c.layers) + "eh_proj.weight", Shape{c.dim, 2 * c.dim}, Role::matrix, d.joint);
    for_each_param(c, d.block, at(c.layers), f);
    f(at(c.layers) + "shared_head.norm.weight", Shape{c.dim}, Role::norm, d.norm);
  }
  f("model.norm.weight", Shape{c.dim}, Role::norm, p.norm);
  if (!c.tied_head) f("lm_head.weight", Shape{c.vocab, c.dim}, Role::matrix, p.head);
}

}  // namespace hadal
