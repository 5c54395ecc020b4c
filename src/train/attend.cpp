// Softmax attention over what a mask shows: spelt out, and without ever holding the scores.
#include "train/torch.h"

#include "train/ops.h"
#include "train/parts.h"

namespace hadal::train {
namespace {

constexpr int64_t block_keys = 64;  // as the engine's pages

// As ops::choose_blocks, of scores [batch, heads, time, keys]: bool [batch, kv_heads, time, keys].
Tensor chosen_blocks(const Tensor& scores, const LayerMask& mask, int64_t kv_heads) {
  const torch::NoGradGuard no_grad;
  const int64_t time = scores.size(2), keys = scores.size(3), blocks = (keys + block_keys - 1) / block_keys;
  const Tensor padded = at::constant_pad_nd(scores.detach(), {0, blocks * block_keys - keys}, -INFINITY);
  Tensor best = padded.unflatten(-1, {blocks, block_keys}).amax(-1);  // [batch, heads, time, blocks]
  best = best - best.amax(-1, true);
  best = best.unflatten(1, {kv_heads, scores.size(1) / kv_heads}).amax(2);  // [batch, kv_heads, time, blocks]
  const Tensor index = torch::arange(blocks), own = torch::arange(keys - time, keys).unsqueeze(1).floor_divide(block_keys);
  const Tensor always = (index == 0) | (index == own) | (index == own - 1);
  best = torch::where(always & (best > -INFINITY), torch::full({}, INFINITY, best.options()), best);
  const Tensor order = std::get<1>(best.flip(-1).sort(true, -1, true));  // of equals the later
  const Tensor kept = torch::zeros_like(best, torch::kBool).scatter_(-1, (blocks - 1) - order.slice(-1, 0, mask.top_blocks), true);
  return kept.repeat_interleave(block_keys, -1).slice(-1, 0, keys);
}

Tensor attend_by_algebra(const AttendArgs& a, const Rows& rows) {
  const int64_t kv_heads = a.k.size(2), group = a.q.size(2) / kv_heads;
  const Tensor k = a.k.repeat_interleave(group, 2), v = a.v.repeat_interleave(group, 2);
  const torch::ScalarType wide = a.q.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  Tensor scores = torch::einsum("bthd,bshd->bhts", {a.q, k}).to(wide) * a.scale;
  scores = scores.masked_fill(~visible(a.mask, rows), -INFINITY);
  if (a.selected.defined()) scores = scores.masked_fill(~a.selected.unsqueeze(1), -INFINITY);
  if (a.mask.top_blocks > 0) scores = scores.masked_fill(~chosen_blocks(scores, a.mask, kv_heads).repeat_interleave(group, 1), -INFINITY);
  return torch::einsum("bhts,bshd->bthd", {scores.softmax(-1).to(v.scalar_type()), v});
}

}  // namespace

Tensor attend(const AttendArgs& args, const Rows& rows) {
  if (rows.pass.path == Path::algebra) return attend_by_algebra(args, rows);
  ops::FlashMask mask{args.mask.window, args.mask.sinks, rows.key_position.numel() - rows.position.numel()};
  if (args.selected.defined()) mask.selected = ops::selected_words(args.selected.unsqueeze(1));
  const Tensor k = args.k.to(args.q.scalar_type());
  if (args.mask.top_blocks > 0) {
    const Tensor chosen = ops::choose_blocks(args.q, k, args.scale, mask, args.mask.top_blocks);
    mask.selected = mask.selected.defined() ? chosen & mask.selected : chosen;
  }
  return ops::attend(args.q, k, args.v.to(args.q.scalar_type()), args.scale, mask);
}

}  // namespace hadal::train
