// Softmax attention over what a mask shows: spelt out, and without ever holding the scores.
#include "train/torch.h"

#include <algorithm>

#include "train/ops.h"
#include "train/parts.h"

namespace hadal::train {
namespace {

constexpr int64_t block_keys = 64;  // as the engine's pages

// Of the blocks of 64 keys that a row sees: the first, its own and the one before, and the best of the others, top_blocks in all; a block
// is as good as its best key for one head of the group, less that head's best key of all. Bool [batch, kv_heads, time, keys].
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
  return kept.repeat_interleave(block_keys, -1).slice(-1, 0, keys);
}

// The same from queries and keys, a few queries at a time.
Tensor chosen_blocks(const AttendArgs& a, const Rows& rows) {
  const torch::NoGradGuard no_grad;
  constexpr int64_t scores_at_once = int64_t(1) << 24;
  const int64_t kv_heads = a.k.size(2), group = a.q.size(2) / kv_heads, keys = a.k.size(1);
  const Tensor k = a.k.detach().repeat_interleave(group, 2).permute({0, 2, 3, 1}).to(torch::kFloat), seen = visible(a.mask, rows);
  const int64_t step = std::max<int64_t>(1, scores_at_once / (a.q.size(0) * a.q.size(2) * keys));
  std::vector<Tensor> parts;
  for (int64_t first = 0; first < a.q.size(1); first += step) {
    const int64_t end = std::min(a.q.size(1), first + step);
    Rows some = rows;
    some.position = rows.position.slice(0, first, end);
    const Tensor q = a.q.detach().slice(1, first, end).transpose(1, 2).to(torch::kFloat);
    const Tensor scores = q.matmul(k).mul_(a.scale).masked_fill_(~seen.slice(0, first, end), -INFINITY);
    parts.push_back(chosen_blocks(scores, a.mask, kv_heads, some));
  }
  return torch::cat(parts, 2);
}

Tensor attend_by_algebra(const AttendArgs& a, const Rows& rows) {
  const int64_t kv_heads = a.k.size(2), group = a.q.size(2) / kv_heads;
  const Tensor k = a.k.repeat_interleave(group, 2), v = a.v.repeat_interleave(group, 2);
  const torch::ScalarType wide = a.q.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  Tensor scores = torch::einsum("bthd,bshd->bhts", {a.q, k}).to(wide) * a.scale;
  scores = scores.masked_fill(~visible(a.mask, rows), -INFINITY);
  if (a.selected.defined()) scores = scores.masked_fill(~a.selected.unsqueeze(1), -INFINITY);
  if (a.mask.top_blocks > 0)
    scores = scores.masked_fill(~chosen_blocks(scores, a.mask, kv_heads, rows).repeat_interleave(group, 1), -INFINITY);
  return torch::einsum("bhts,bshd->bthd", {scores.softmax(-1).to(v.scalar_type()), v});
}

}  // namespace

Tensor attend(const AttendArgs& args, const Rows& rows) {
  if (rows.pass.path == Path::algebra) return attend_by_algebra(args, rows);
  ops::FlashMask mask{args.mask.window, args.mask.sinks, rows.key_position.numel() - rows.position.numel()};
  mask.selected = args.selected.defined() ? args.selected.unsqueeze(1) : Tensor();
  if (args.mask.top_blocks > 0) {
    const Tensor chosen = chosen_blocks(args, rows);
    mask.selected = mask.selected.defined() ? mask.selected & chosen : chosen;
  }
  return ops::attend(args.q, args.k.to(args.q.scalar_type()), args.v.to(args.q.scalar_type()), args.scale, mask);
}

}  // namespace hadal::train
