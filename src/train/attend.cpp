// Softmax attention over what a mask shows: spelt out, and without ever holding the scores.
#include "train/torch.h"

#include "train/parts.h"

namespace hadal::train {
namespace {

constexpr int64_t block_keys = 64;  // as the engine's pages

// Of the blocks of 64 keys that a row sees: the first, its own and the one before, and the best of the others, top_blocks in all; a block
// is as good as its best key for one head of the group, less that head's best key of all. Bool [batch, heads, time, keys].
// The engine's twin is ops/blocks.cpp, which looks at a sketch of the keys.
Tensor chosen_blocks(const Tensor& scores, const LayerMask& mask, int64_t kv_heads, const Rows& rows) {
  const torch::NoGradGuard no_grad;
  const int64_t keys = scores.size(-1), blocks = (keys + block_keys - 1) / block_keys, group = scores.size(1) / kv_heads;
  const Tensor padded = at::constant_pad_nd(scores.detach(), {0, blocks * block_keys - keys}, -INFINITY);
  Tensor best = padded.unflatten(-1, {blocks, block_keys}).amax(-1);  // [batch, heads, time, blocks]
  best = best - best.amax(-1, true);
  best = best.unflatten(1, {kv_heads, group}).amax(2);  // [batch, kv_heads, time, blocks]
  const Tensor index = torch::arange(blocks), own = rows.position.unsqueeze(1).floor_divide(block_keys);
  const Tensor always = (index == 0) | (index == own) | (index == own - 1);  // [time, blocks]
  best = torch::where(always & (best > -INFINITY), torch::full({}, INFINITY, best.options()), best);
  // The row's own block before all others; of equals the later.
  best = torch::where(index == own, torch::full({}, INFINITY, best.options()), best);
  const Tensor order = std::get<1>(best.flip(-1).sort(true, -1, true));
  const Tensor kept = torch::zeros_like(best, torch::kBool).scatter_(-1, (blocks - 1) - order.slice(-1, 0, mask.top_blocks), true);
  return kept.repeat_interleave(block_keys, -1).slice(-1, 0, keys).repeat_interleave(group, 1);
}

Tensor attend_by_algebra(const AttendArgs& a, const Rows& rows) {
  const int64_t kv_heads = a.k.size(2), group = a.q.size(2) / kv_heads;
  const Tensor k = a.k.repeat_interleave(group, 2), v = a.v.repeat_interleave(group, 2);
  const torch::ScalarType wide = a.q.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  Tensor scores = torch::einsum("bthd,bshd->bhts", {a.q, k}).to(wide) * a.scale;
  scores = scores.masked_fill(~visible(a.mask, rows), -INFINITY);
  if (a.selected.defined()) scores = scores.masked_fill(~a.selected.unsqueeze(1), -INFINITY);
  if (a.mask.top_blocks > 0) scores = scores.masked_fill(~chosen_blocks(scores, a.mask, kv_heads, rows), -INFINITY);
  return torch::einsum("bhts,bshd->bthd", {scores.softmax(-1).to(v.scalar_type()), v});
}

}  // namespace

Tensor attend(const AttendArgs& args, const Rows& rows) {
  const bool plain = !args.selected.defined() && args.mask.top_blocks == 0 && args.mask.window == 0 && rows.past.empty();
  if (rows.pass.attend_by == AttendBy::algebra || !plain) return attend_by_algebra(args, rows);
  return at::scaled_dot_product_attention(args.q.transpose(1, 2), args.k.transpose(1, 2), args.v.transpose(1, 2), {}, 0, true, args.scale,
                                          true)
      .transpose(1, 2);
}

}  // namespace hadal::train
