#include "train/balance.h"

#include "train/torch.h"

#include "core/error.h"

namespace hadal::train {
namespace {

bool sets_bias(BalanceKind kind) { return kind == BalanceKind::bias || kind == BalanceKind::quantile; }

Tensor times_chosen(const Tensor& expert, int64_t experts) { return torch::bincount(expert.masked_select(expert >= 0), {}, experts); }

}  // namespace

Tensor shares(const Routing& routing) { return routing.scores / (routing.scores.sum(-1, true) + 1e-20); }

Tensor article_loss(const Tensor& router_weights) {
  const Tensor expert_load = router_weights.mean(0);
  return 0.1 * (expert_load - 1. / double(router_weights.size(-1))).pow(2).mean();
}

Tensor switch_loss(const Tensor& shares, const Tensor& chosen) {
  const Tensor f = chosen.to(shares.scalar_type()) / chosen.sum().to(shares.scalar_type());
  return double(shares.size(-1)) * (f * shares.mean(0)).sum();
}

Tensor sequence_loss(const Routing& routing) {
  const int64_t experts = routing.scores.size(-1);
  const Tensor p = shares(routing).unflatten(0, {routing.sequences, -1}).mean(1);      // [sequences, experts]
  const Tensor own = routing.expert.unflatten(0, {routing.sequences, -1}).flatten(1);  // [sequences, time * active]
  const Tensor f = torch::zeros_like(p).scatter_add(1, own, torch::ones_like(own, p.options())) / double(own.size(1));
  return double(experts) * (f * p).sum(-1).mean();
}

Tensor z_loss(const Tensor& logits) { return logits.logsumexp(-1).square().mean(); }

Balancer::Balancer(const BalanceConfig& balance, const ModelConfig& config, SumOverRanks sum)
    : balance_(balance), config_(config), sum_(std::move(sum)) {
  if (sets_bias(balance.kind) && !config.moe.bias)
    throw Error("balance: a selection bias is to be set, but the router has none: expected topk_method \"noaux_tc\" in the model");
  if (config.moe.expert_choice && balance.kind != BalanceKind::none)
    throw Error("balance: experts that choose their rows are balanced as they are: expected kind \"none\" beside expert_choice");
  begin_step(1);
}

void Balancer::begin_step(int64_t micro_batches) {
  share_ = 1. / double(micro_batches);
  chosen_ = torch::zeros({config_.cached_layers(), config_.moe.experts}, torch::kLong);
  scores_.assign(size_t(config_.cached_layers()), {});
}

Tensor Balancer::over_ranks(Tensor t) const {
  if (sum_) sum_(t);
  return t;
}

Tensor Balancer::loss(const Routing& routing, int64_t layer) {
  if (!torch::GradMode::is_enabled()) return torch::zeros({}, routing.scores.options());
  chosen_[layer] += times_chosen(routing.expert, config_.moe.experts);
  const bool chooses = layer >= config_.moe.hash_layers;  // by what it has learnt
  if (chooses && balance_.kind == BalanceKind::quantile) scores_[size_t(layer)].push_back(routing.scores.detach());
  Tensor sum = torch::zeros({}, routing.scores.options());
  if (chooses && balance_.loss_weight() > 0) sum = sum + balance_loss(routing, layer);
  if (balance_.z_loss > 0) sum = sum + balance_.z_loss * z_loss(routing.logits);
  return sum * share_;
}

Tensor Balancer::balance_loss(const Routing& routing, int64_t layer) {
  const double weight = balance_.loss_weight();
  if (balance_.kind == BalanceKind::article) return weight / 0.1 * article_loss(shares(routing));
  if (balance_.kind == BalanceKind::switch_loss) return weight * switch_loss(shares(routing), over_ranks(chosen_[layer].clone()));
  return weight * sequence_loss(routing);
}

void Balancer::finish_step(const Params<Tensor>& params, double decay) {
  const torch::NoGradGuard no_grad;
  chosen_ = over_ranks(chosen_);
  worst_ = {};
  const auto finish = [&](const Block<Tensor>& block, int64_t layer) {
    const auto* moe = std::get_if<Moe<Tensor>>(&block.ffn);
    if (!moe || chosen_[layer].sum().item<int64_t>() == 0) return;
    const std::span<const int64_t> load{chosen_.data_ptr<int64_t>() + layer * config_.moe.experts, size_t(config_.moe.experts)};
    if (const LoadFigures f = load_figures(load, config_.moe.active); worst_.rows == 0 || f.spread > worst_.spread) worst_ = f;
    if (sets_bias(balance_.kind) && layer >= config_.moe.hash_layers) set_bias(moe->bias, layer, decay);
  };
  for (int64_t layer = 0; layer < config_.layers; ++layer) finish(params.blocks[size_t(layer)], layer);
  for (const Draft<Tensor>& draft : params.drafts) finish(draft.block, config_.layers);
}

void Balancer::set_bias(Tensor bias, int64_t layer, double decay) {
  const double rate = balance_.bias_rate() * decay;
  if (balance_.kind == BalanceKind::bias) {
    const Tensor load = chosen_[layer].to(torch::kDouble);
    bias.add_((load.mean() - load).sign(), rate);
    return;
  }
  const Tensor scores = torch::cat(scores_[size_t(layer)]).to(torch::kFloat).contiguous();
  Tensor fitted = bias.to(torch::kFloat).clone();
  fit_selection_bias({scores.data_ptr<float>(), scores.size(0), scores.size(1), scores.size(1)}, config_.moe,
                     {fitted.data_ptr<float>(), size_t(fitted.numel())}, {.sweeps = balance_.sweeps});
  // Every rank fits the tokens it has; the mean of the fits is what all take.
  const Tensor ranks = over_ranks(torch::ones({1}));
  bias.add_(over_ranks(fitted - bias) / ranks, rate);
}

LoadFigures Balancer::worst() const { return worst_; }

}  // namespace hadal::train
