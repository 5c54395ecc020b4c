// Keeping the experts of a mixture evenly loaded while it learns: losses on a layer's routing, and selection biases that are set rather
// than learnt.
#pragma once
#include "model/expert_balance.h"
#include "train/balance_config.h"
#include "train/forward.h"

namespace hadal::train {

// Each router's shares of a row, which sum to 1 [rows, experts].
Tensor shares(const Routing& routing);
Tensor article_loss(const Tensor& router_weights);  // with its 0.1
// E sum f P: 1 when even. chosen: of each expert how often [experts].
Tensor switch_loss(const Tensor& shares, const Tensor& chosen);
Tensor sequence_loss(const Routing& routing);  // mean over the sequences
Tensor z_loss(const Tensor& logits);

class Balancer {
 public:
  using SumOverRanks = std::function<void(Tensor&)>;  // in place; every rank calls it with tensors of the same shape, in the same order
  // Error: a bias is to be set, and the router has none.
  Balancer(const BalanceConfig& balance, const ModelConfig& config, SumOverRanks sum = {});

  // A step is of so many micro-batches, those of all ranks together, whose losses count as their mean.
  void begin_step(int64_t micro_batches);
  // For Pass::balance. Without gradients (evaluation, the first run of a recomputed block) nothing is counted and the loss is 0.
  Tensor loss(const Routing& routing, int64_t layer);
  // Sets the selection biases of `params` from what was chosen in the step. decay: factor on the rate, as the schedule's on the learning
  // rate.
  void finish_step(const Params<Tensor>& params, double decay);

  const Tensor& chosen() const { return chosen_; }  // int64 [layers, experts], of the step so far
  LoadFigures worst() const;                        // of the last step's layers the one with the largest spread

 private:
  Tensor balance_loss(const Routing& routing, int64_t layer);
  void set_bias(Tensor bias, int64_t layer, double decay);
  Tensor over_ranks(Tensor t) const;

  BalanceConfig balance_;
  ModelConfig config_;
  SumOverRanks sum_;
  double share_ = 1;                         // of one micro-batch in the step
  Tensor chosen_;                            // int64 [layers, experts]
  std::vector<std::vector<Tensor>> scores_;  // quantile: of each layer's micro-batches
  LoadFigures worst_;
};

}  // namespace hadal::train
