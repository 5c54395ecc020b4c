// The router as torch algebra. Sources: DeepSeek-V2 modeling_deepseek.py, MoEGate; DeepSeek-V3 inference/model.py, Gate.
#include "train/torch.h"

#include "train/parts.h"

namespace hadal::train {
namespace {

// Only the experts of the best groups may be chosen.
Tensor within_groups(const Tensor& choice, const MoeConfig& c) {
  const Tensor groups = choice.unflatten(-1, {c.groups, -1});
  const bool best = c.group_score == GroupScore::best || groups.size(-1) < 2;
  const Tensor rank = best ? groups.amax(-1) : std::get<0>(groups.topk(2, -1)).sum(-1);
  const Tensor kept = torch::zeros_like(rank, torch::kBool).scatter_(-1, std::get<1>(rank.topk(c.active_groups, -1)), true);
  return groups.masked_fill(~kept.unsqueeze(-1), -INFINITY).flatten(-2);
}

}  // namespace

Tensor scores_of(const Tensor& logits, RouterScore kind) {
  switch (kind) {
    case RouterScore::softmax:
      return logits.softmax(-1);
    case RouterScore::sigmoid:
      return logits.sigmoid();
    case RouterScore::sqrt_softplus:
      return at::softplus(logits).sqrt();
  }
  return {};
}

Routing weighed(const Tensor& logits, const Tensor& scores, const Tensor& expert, const MoeConfig& c) {
  Tensor weight = scores.gather(-1, expert.clamp_min(0)) * (expert >= 0);
  if (c.normalize && c.active > 1) weight = weight / (weight.sum(-1, true) + 1e-20);
  return {logits, scores, expert, weight * double(c.scale)};
}

Routing choose_experts(const Tensor& logits, const MoeConfig& c, const Tensor& bias) {
  const Tensor scores = scores_of(logits, c.score);
  Tensor choice = scores.detach();
  if (bias.defined()) choice = choice + bias;
  if (c.groups > 1) choice = within_groups(choice, c);
  return weighed(logits, scores, std::get<0>(std::get<1>(choice.topk(c.active, -1)).sort(-1)), c);
}

Routing route(const Tensor& logits, const Tensor& bias, int64_t layer, const Rows& rows) {
  const MoeConfig& c = rows.pass.config.moe;
  if (layer < c.hash_layers) return hash_experts(logits, c, rows.tokens.flatten(), layer);
  if (c.expert_choice) return choose_rows(logits, c);
  return choose_experts(logits, c, bias);
}

}  // namespace hadal::train
