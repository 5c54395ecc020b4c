// How a run keeps its experts evenly loaded, without a word of torch.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace hadal::train {

enum class BalanceKind {
  none,
  article,      // weight * mean over experts of (mean router weight - 1 / experts)^2: as the article prints it, with weight 0.1
  switch_loss,  // weight * experts * sum f P, f the share of choices counted over the whole batch (Switch, arXiv 2101.03961)
  sequence,     // the same with f and P of one row of tokens alone (DeepSeek-V3, arXiv 2412.19437, eq. 17 to 20)
  bias,         // no loss: after each step the bias moves by `rate` towards the mean load, by its sign (arXiv 2408.15664)
  quantile,     // no loss: the bias moves by `rate` of the way to where quantile balancing puts it for the step's tokens
};
std::vector<std::string> balance_kinds();
BalanceKind balance_kind(const std::string& name);  // as above, "switch" for the second. Error: lists them

struct BalanceConfig {
  BalanceKind kind = BalanceKind::none;
  std::optional<double> weight =
      {};  // default: article 0.1, switch 0.01, sequence 1e-4; beside bias and quantile that of a sequence loss, 1e-4
  std::optional<double> rate = {};  // default: bias 0.001, quantile 0.3
  double z_loss = 0;                // weight of the mean of logsumexp(logits)^2 (ST-MoE, arXiv 2202.08906, eq. 5), usually 1e-3
  int64_t sweeps = 3;               // quantile: of fit_selection_bias
  double loss_weight() const;
  double bias_rate() const;
};

}  // namespace hadal::train
