// Losses by finite differences and by hand, biases that move loads towards equal, and what the trainer's loop relies on.
#include "train/balance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include "train/torch.h"

#include <cmath>

#include "core/error.h"
#include "train/parts.h"
#include "train/weights.h"

namespace hadal::train {
namespace {

ModelConfig config_with(const MoeConfig& moe, int64_t layers = 1) {
  ModelConfig c;
  c.family = "deepseek", c.vocab = 97, c.dim = 16, c.layers = layers, c.heads = 2, c.kv_heads = 2, c.head_dim = 8, c.ffn_dim = 16;
  c.attention_scale = 0.35f;
  c.moe = moe;
  return c;
}

const MoeConfig softmax{.experts = 8, .active = 2, .normalize = true};
const MoeConfig biased{.experts = 8, .active = 2, .score = RouterScore::sigmoid, .bias = true, .normalize = true};

Routing route(const Tensor& logits, const MoeConfig& moe, int64_t sequences = 1, const Tensor& bias = {}) {
  Routing routing = choose_experts(logits, moe, bias);
  routing.sequences = sequences;
  return routing;
}

TEST(BalanceLoss, ArticleAsPrinted) {
  const Tensor weights = torch::tensor({{0.5, 0.25, 0.125, 0.125}, {0.3, 0.3, 0.2, 0.2}});
  const double load[] = {0.4, 0.275, 0.1625, 0.1625};
  double expected = 0;
  for (const double x : load) expected += 0.1 * (x - 0.25) * (x - 0.25) / 4;
  EXPECT_NEAR(article_loss(weights).item<double>(), expected, 1e-9);
}

TEST(BalanceLoss, SwitchIsOneWhenEvenAndExpertsWhenAllIsOne) {
  const Tensor even = torch::full({6, 4}, 0.25);
  EXPECT_NEAR(switch_loss(even, torch::tensor({3, 3, 3, 3})).item<double>(), 1, 1e-6);
  Tensor one = torch::zeros({6, 4});
  one.select(1, 2).fill_(1);
  EXPECT_NEAR(switch_loss(one, torch::tensor({0, 0, 6, 0})).item<double>(), 4, 1e-6);
}

TEST(BalanceLoss, SequencesAreJudgedAlone) {
  // Two sequences that use one expert each: together nearly even, alone not at all.
  const MoeConfig moe{.experts = 2, .active = 1};
  Tensor logits = torch::zeros({8, 2});
  logits.slice(0, 0, 4).select(1, 0).fill_(20);
  logits.slice(0, 4, 8).select(1, 1).fill_(20);
  EXPECT_NEAR(sequence_loss(route(logits, moe, 2)).item<double>(), 2, 1e-5);
  EXPECT_NEAR(sequence_loss(route(logits, moe, 1)).item<double>(), 1, 1e-5);
}

TEST(BalanceLoss, GradientsByFiniteDifferences) {
  struct Case {
    BalanceConfig balance;
    MoeConfig moe;
  };
  const Case cases[] = {{{.kind = BalanceKind::article, .weight = 5.}, softmax},
                        {{.kind = BalanceKind::article, .weight = 5.}, biased},
                        {{.kind = BalanceKind::switch_loss, .weight = 1.}, softmax},
                        {{.kind = BalanceKind::sequence, .weight = 1.}, biased},
                        {{.kind = BalanceKind::none, .z_loss = 0.1}, softmax}};
  torch::manual_seed(4);
  for (const Case& c : cases) {
    const Tensor logits = torch::randn({12, 8}, torch::kDouble).requires_grad_();
    const Tensor bias = c.moe.bias ? torch::zeros({8}, torch::kDouble) : Tensor();
    const auto value = [&](const Tensor& x) {
      Balancer balancer(c.balance, config_with(c.moe));
      balancer.begin_step(2);
      return balancer.loss(route(x, c.moe, 3, bias), 0);
    };
    value(logits).backward();
    for (int64_t i = 0; i < logits.numel(); i += 5) {
      constexpr double step = 1e-6;
      Tensor up = logits.detach().clone(), down = up.clone();
      up.view(-1)[i] += step;
      down.view(-1)[i] -= step;
      EXPECT_NEAR(logits.grad().view(-1)[i].item<double>(), (value(up) - value(down)).item<double>() / (2 * step), 1e-7);
    }
    EXPECT_GT(logits.grad().abs().max().item<double>(), 1e-5);
  }
}

TEST(Balancer, SwitchLossCountsTheWholeStep) {
  torch::manual_seed(5);
  const Tensor first = torch::randn({40, 8}), second = torch::randn({40, 8});
  Balancer balancer({.kind = BalanceKind::switch_loss, .weight = 1.}, config_with(softmax));
  balancer.begin_step(2);
  balancer.loss(route(first, softmax), 0);
  const double loss = balancer.loss(route(second, softmax), 0).item<double>();
  const Routing both = route(torch::cat({first, second}), softmax);
  const Tensor chosen = torch::bincount(both.expert.flatten(), {}, 8);
  EXPECT_TRUE(torch::equal(balancer.chosen()[0], chosen));
  EXPECT_NEAR(loss, 0.5 * switch_loss(second.softmax(-1), chosen).item<double>(), 1e-6);
}

TEST(Balancer, CountsOnceWhetherBlocksAreRecomputedOrNot) {
  for (const bool recompute : {false, true}) {
    const ModelConfig config = config_with({.experts = 4, .active = 2, .expert_dim = 8, .hash_layers = 1}, 2);
    const Params<Tensor> params = random_params(config, 1);
    Balancer balancer({.kind = BalanceKind::switch_loss}, config);
    const auto balance = [&](const Routing& r, int64_t layer) { return balancer.loss(r, layer); };
    const Tensor tokens = torch::randint(97, {2, 10}, torch::kLong);
    forward(params, tokens, {.config = config, .recompute = recompute, .balance = balance}).sum().backward();
    EXPECT_EQ(balancer.chosen().sum().item<int64_t>(), 2 * 2 * 20) << recompute;
    const torch::NoGradGuard evaluation;
    forward(params, tokens, {.config = config, .balance = balance});
    EXPECT_EQ(balancer.chosen().sum().item<int64_t>(), 2 * 2 * 20);
  }
}

// A router over clusters of unequal size: one of two experts would get most rows.
struct Toy {
  ModelConfig config;
  Params<Tensor> params;
  explicit Toy(const MoeConfig& moe) : config(config_with(moe)), params(random_params(config, 7)) {}
  Tensor bias() { return std::get<Moe<Tensor>>(params.blocks[0].ffn).bias; }
  Tensor logits(int64_t rows) const {
    const Tensor center = torch::randn({12, config.moe.experts}, at::detail::createCPUGenerator(1));
    const Tensor size = 1 / torch::arange(1, 13, torch::kFloat);
    const Tensor cluster = torch::multinomial(size, rows, true);
    return center.index_select(0, cluster) + 0.5 * torch::randn({rows, config.moe.experts});
  }
  double spread(int64_t rows) {
    const Routing r = route(logits(rows), config.moe, 1, bias());
    const Tensor load = torch::bincount(r.expert.flatten(), {}, config.moe.experts);
    return load_figures({load.data_ptr<int64_t>(), size_t(load.numel())}, config.moe.active).spread;
  }
  void train(const BalanceConfig& balance, int64_t steps) {
    Balancer balancer(balance, config);
    for (int64_t step = 0; step < steps; ++step) {
      balancer.begin_step(2);
      for (int64_t micro = 0; micro < 2; ++micro) balancer.loss(route(logits(512), config.moe, 1, bias()), 0);
      balancer.finish_step(params, 1 - double(step) / double(steps));
    }
  }
};

TEST(Balancer, BiasesMoveLoadsTowardsEqual) {
  torch::manual_seed(6);
  for (const MoeConfig& moe : {biased, MoeConfig{.experts = 64, .active = 6, .score = RouterScore::sigmoid, .bias = true}}) {
    const double before = Toy(moe).spread(100'000);
    Toy by_sign(moe), by_quantile(moe);
    by_sign.train({.kind = BalanceKind::bias, .rate = 0.01}, 300);
    by_quantile.train({.kind = BalanceKind::quantile, .rate = 0.3}, 60);
    EXPECT_GT(before, 0.5);
    EXPECT_LT(by_sign.spread(100'000), 0.15 * before) << before;
    EXPECT_LT(by_quantile.spread(100'000), 0.15 * before) << before;
  }
}

TEST(Balancer, RanksCountTogether) {
  // Each rank is given what both would have summed.
  Toy toy(biased);
  const auto doubled = [](Tensor& t) { t.mul_(2); };
  Balancer balancer({.kind = BalanceKind::bias, .rate = 0.01}, toy.config, doubled);
  balancer.begin_step(1);
  balancer.loss(route(toy.logits(100), toy.config.moe, 1, toy.bias()), 0);
  balancer.finish_step(toy.params, 0.5);
  EXPECT_EQ(balancer.chosen().sum().item<int64_t>(), 400);
  EXPECT_NEAR(toy.bias().abs().max().item<double>(), 0.005, 1e-7);
  EXPECT_EQ(balancer.worst().rows, 200);
}

TEST(Balancer, NeedsABiasToSetOne) {
  EXPECT_THROW(Balancer({.kind = BalanceKind::bias}, config_with(softmax)), Error);
  EXPECT_THROW(balance_kind("even"), Error);
  EXPECT_EQ(balance_kind("switch"), BalanceKind::switch_loss);
}

}  // namespace
}  // namespace hadal::train
