// Attention in its two kinds, as the papers write it. Keys and values of the memory stand before those of this pass.
#include "train/torch.h"

#include <cmath>

#include "core/error.h"
#include "train/parts.h"

namespace hadal::train {
namespace {

// Behind those of the memory; what the layer leaves to the next segment is noted, detached.
Memory::Layer with_past(const Memory::Layer& own, int64_t layer, const Rows& rows) {
  Memory::Layer all = own;
  if (!rows.past.empty()) {
    const Memory::Layer& past = rows.past[size_t(layer)];
    all.keys = torch::cat({past.keys.to(own.keys.scalar_type()), own.keys}, 1);
    all.values = torch::cat({past.values.to(own.values.scalar_type()), own.values}, 1);
    if (own.index_keys.defined()) all.index_keys = torch::cat({past.index_keys.to(own.index_keys.scalar_type()), own.index_keys}, 1);
  }
  if (rows.pass.memory && layer < rows.pass.config.layers)
    rows.pass.memory->layers[size_t(layer)] = {all.keys.detach(), all.values.detach(),
                                               all.index_keys.defined() ? all.index_keys.detach() : Tensor()};
  return all;
}

Tensor by_head(const Tensor& x, int64_t heads) { return x.unflatten(-1, {heads, -1}); }

}  // namespace

Tensor visible(const LayerMask& mask, const Rows& rows) {
  const Tensor query = rows.position.unsqueeze(1), key = rows.key_position.unsqueeze(0);
  const Tensor past = key <= query;
  return mask.window == 0 ? past : past & ((key > query - mask.window) | (key < mask.sinks));
}

Tensor attention(const Tensor& h, const Gqa<Tensor>& w, int64_t layer, const Rows& rows) {
  const ModelConfig& c = rows.pass.config;
  const Path path = rows.pass.path;
  Tensor q = project(h, w.q), k = project(h, w.k), v = project(h, w.v);
  if (c.qkv_bias) {
    q = q + w.q_bias.to(q.scalar_type());
    k = k + w.k_bias.to(k.scalar_type());
    v = v + w.v_bias.to(v.scalar_type());
  }
  q = by_head(q, c.heads);
  k = by_head(k, c.kv_heads);
  if (c.qk_norm) {
    q = rms_norm(q, w.q_norm, c.norm_eps, path);
    k = rms_norm(k, w.k_norm, c.norm_eps, path);
  }
  const Memory::Layer all = with_past({rotate(k, rows.rope, path), by_head(v, c.kv_heads), {}}, layer, rows);
  const Tensor heads = attend({rotate(q, rows.rope, path), all.keys, all.values, c.attention_scale, c.mask_of(layer)}, rows);
  const Tensor out = project(heads.flatten(-2), w.o);
  return c.out_bias ? out + w.o_bias.to(out.scalar_type()) : out;
}

namespace {

struct IndexScores {
  Tensor scores;    // [batch, time, keys], of visible keys
  Tensor selected;  // bool, the same shape; undefined: every key fits
};

Rope index_rope(const Rows& rows) {
  Rope halves = rows.rope;  // here, unlike in the attention itself
  halves.pairs = false;
  return halves;
}

// Lightning indexer (DeepSeek-V3.2-Exp): its keys of this pass. It reads the stream without a way back into it: its own loss teaches it.
Tensor index_keys(const Tensor& h, const Indexer<Tensor>& w, const Rows& rows) {
  const ModelConfig& c = rows.pass.config;
  const Tensor raw = project(h.detach(), w.key);
  const Tensor normed = at::layer_norm(raw.to(w.key_norm.scalar_type()), {c.indexer.dim}, w.key_norm, w.key_norm_bias, c.latent_norm_eps);
  return rotate(normed.unsqueeze(2), index_rope(rows), rows.pass.path).squeeze(2);
}

// Of every key, the memory's first: the sum over heads of weight * max(0, q . key).
IndexScores index_scores(const Tensor& q_latent, const Tensor& h, const Tensor& keys, const Indexer<Tensor>& w, const Rows& rows) {
  const ModelConfig& c = rows.pass.config;
  const Tensor q = rotate(by_head(project(q_latent.detach(), w.q_up), c.indexer.heads), index_rope(rows), rows.pass.path);
  const Tensor weight = project(h.detach(), w.head_weights).to(keys.scalar_type()) / std::sqrt(double(c.indexer.heads * c.indexer.dim));
  const Tensor dots = torch::einsum("bthd,bsd->bths", {q.to(keys.scalar_type()), keys}).relu();
  const Tensor scores = torch::einsum("bths,bth->bts", {dots, weight}).masked_fill(~visible({}, rows), -INFINITY);
  if (keys.size(1) <= c.indexer.keys) return {scores, {}};
  const Tensor best = std::get<1>(scores.detach().topk(c.indexer.keys, -1));
  return {scores, torch::zeros_like(scores, torch::kBool).scatter_(-1, best, true) & visible({}, rows)};
}

// KL divergence from the attention, summed over its heads and made a distribution, to the softmax of the indexer's scores; mean over rows.
Tensor indexer_loss(const AttendArgs& args, const Tensor& scores, const Rows& rows) {
  Tensor target;
  {
    const torch::NoGradGuard no_grad;
    const Tensor dots = torch::einsum("bthd,bshd->bhts", {args.q, args.k}).to(scores.scalar_type()) * args.scale;
    target = dots.masked_fill(~visible(args.mask, rows), -INFINITY).softmax(-1).mean(1);
  }
  const Tensor log_p = scores.log_softmax(-1).masked_fill(~visible(args.mask, rows), 0);
  return (torch::xlogy(target, target) - target * log_p).sum(-1).mean();
}

}  // namespace

Tensor attention(const Tensor& h, const Mla<Tensor>& w, int64_t layer, const Rows& rows) {
  const ModelConfig& c = rows.pass.config;
  const Path path = rows.pass.path;
  const Tensor q_latent = c.q_rank == 0 ? Tensor() : rms_norm(project(h, w.q_down), w.q_norm, c.latent_norm_eps, path);
  const Tensor q = by_head(c.q_rank == 0 ? project(h, w.q) : project(q_latent, w.q_up), c.heads);
  const Tensor turned_q = torch::cat({q.slice(-1, 0, c.nope_dim), rotate(q.slice(-1, c.nope_dim), rows.rope, path)}, -1);
  const Tensor down = project(h, w.kv_down);
  const bool chooses = c.indexer.heads > 0;
  const Memory::Layer own{rms_norm(down.slice(-1, 0, c.kv_rank), w.kv_norm, c.latent_norm_eps, path),
                          rotate(down.slice(-1, c.kv_rank).unsqueeze(2), rows.rope, path).squeeze(2),
                          chooses ? index_keys(h, w.indexer, rows) : Tensor()};
  const Memory::Layer all = with_past(own, layer, rows);
  const IndexScores index = chooses ? index_scores(q_latent, h, all.index_keys, w.indexer, rows) : IndexScores{};

  const Tensor expanded = by_head(project(all.keys, w.kv_up), c.heads);  // of each head: key, value
  const Tensor rotated = all.values.unsqueeze(2).expand({-1, -1, c.heads, -1}).to(expanded.scalar_type());
  const AttendArgs args{turned_q,
                        torch::cat({expanded.slice(-1, 0, c.nope_dim), rotated}, -1),
                        expanded.slice(-1, c.nope_dim),
                        c.attention_scale,
                        c.mask_of(layer),
                        index.selected};
  Tensor out = project(attend(args, rows).flatten(-2), w.o);
  if (chooses && rows.pass.indexer_weight > 0) out = attach(out, indexer_loss(args, index.scores, rows) * rows.pass.indexer_weight);
  return out;
}

}  // namespace hadal::train
