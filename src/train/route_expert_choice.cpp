// Expert choice (Zhou et al., arXiv 2202.09368): each expert takes the rows that score it highest, equally many for all. A row's experts
// depend on the rows behind it, so this is a router for training, and for text that is known as a whole.
#include "train/torch.h"

#include "train/parts.h"

namespace hadal::train {

Routing choose_rows(const Tensor& logits, const MoeConfig& c) {
  const int64_t rows = logits.size(0), capacity = std::max<int64_t>(1, rows * c.active / c.experts);
  const Tensor scores = scores_of(logits, c.score), best = std::get<1>(scores.detach().topk(capacity, 0));  // [capacity, experts]
  const Tensor chosen = torch::zeros_like(scores, torch::kBool).scatter_(0, best, true);
  // Each row's experts in ascending order, -1 behind them; as many columns as the busiest row has.
  const Tensor number = torch::where(chosen, torch::arange(c.experts), c.experts);
  const Tensor expert = std::get<0>(number.sort(-1)).slice(-1, 0, chosen.sum(-1).max().item<int64_t>());
  return weighed(logits, scores, expert.masked_fill(expert == c.experts, -1), c);
}

}  // namespace hadal::train
