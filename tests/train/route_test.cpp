// The trainer's router against the engine's, row by row, for every kind.
#include "train/parts.h"

#include <gtest/gtest.h>
#include "train/torch.h"

#include "infer/route.h"

namespace hadal::train {
namespace {

struct Variant {
  std::string name;
  MoeConfig config;
};

std::vector<Variant> variants() {
  const MoeConfig v3{.experts = 16,
                     .active = 4,
                     .groups = 4,
                     .active_groups = 2,
                     .score = RouterScore::sigmoid,
                     .group_score = GroupScore::top2_sum,
                     .bias = true,
                     .normalize = true,
                     .scale = 2.5f};
  MoeConfig flat = v3;
  flat.groups = flat.active_groups = 1;
  MoeConfig softmax_bias = flat;
  softmax_bias.score = RouterScore::softmax;
  return {{"topk", {.experts = 8, .active = 2}},
          {"topk_normalized", {.experts = 64, .active = 6, .normalize = true}},
          {"switch_top_1", {.experts = 8, .active = 1}},
          {"group_limited", {.experts = 16, .active = 3, .groups = 4, .active_groups = 2, .scale = 16}},
          {"sigmoid_bias", flat},
          {"sigmoid_bias_groups", v3},
          {"softmax_bias", softmax_bias},
          {"sqrt_softplus", {.experts = 8, .active = 3, .score = RouterScore::sqrt_softplus, .normalize = true, .scale = 1.5f}}};
}

class Routers : public testing::TestWithParam<Variant> {};

TEST_P(Routers, EqualTheEngines) {
  const MoeConfig& config = GetParam().config;
  torch::manual_seed(1);
  for (const int64_t rows : {1, 7, 500}) {
    const Tensor logits = torch::randn({rows, config.experts});
    const Tensor bias = config.bias ? torch::randn({config.experts}) * 0.1 : Tensor();
    const Routing ours = choose_experts(logits, config, bias);
    Tensor overwritten = logits.clone();
    Route engine;
    hadal::choose_experts(engine, {overwritten.data_ptr<float>(), rows, config.experts, config.experts}, config,
                          config.bias ? bias.data_ptr<float>() : nullptr);
    const Tensor expert = torch::tensor(engine.expert, torch::kInt).to(torch::kLong).view({rows, -1});
    ASSERT_TRUE(torch::equal(ours.expert, expert));
    EXPECT_LE((ours.weight - torch::tensor(engine.weight).view({rows, -1})).abs().max().item<double>(), 1e-6 * config.scale);
  }
}

TEST_P(Routers, WeightsGiveTheirGradientToTheLogits) {
  const MoeConfig& config = GetParam().config;
  torch::manual_seed(2);
  const Tensor logits = torch::randn({5, config.experts}, torch::kDouble).requires_grad_();
  const Tensor bias = config.bias ? torch::randn({config.experts}, torch::kDouble) * 0.1 : Tensor();
  const Tensor factors = torch::randn({5, config.active}, torch::kDouble);
  const auto value = [&](const Tensor& x) { return (choose_experts(x, config, bias).weight * factors).sum(); };
  value(logits).backward();
  constexpr double step = 1e-6;
  const torch::NoGradGuard no_grad;
  for (int64_t i = 0; i < logits.numel(); i += 3) {
    Tensor up = logits.detach().clone(), down = up.clone();
    up.view(-1)[i] += step;
    down.view(-1)[i] -= step;
    EXPECT_NEAR(logits.grad().view(-1)[i].item<double>(), (value(up) - value(down)).item<double>() / (2 * step), 1e-6) << i;
  }
}

TEST(HashRouter, EqualsTheEngines) {
  const MoeConfig config{.experts = 8, .active = 3, .hash_layers = 2, .normalize = true};
  torch::manual_seed(3);
  const Tensor logits = torch::randn({200, 8}), tokens = torch::randint(1000, {200}, torch::kLong);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < 200; ++i) ids.push_back(int32_t(tokens[i].item<int64_t>()));
  for (const int64_t layer : {0, 1}) {
    const Routing ours = hash_experts(logits, config, tokens, layer);
    Tensor overwritten = logits.clone();
    Route engine;
    hadal::hash_experts(engine, {overwritten.data_ptr<float>(), 200, 8, 8}, config, ids, layer);
    EXPECT_TRUE(torch::equal(ours.expert, torch::tensor(engine.expert, torch::kInt).to(torch::kLong).view({200, 3})));
    EXPECT_LE((ours.weight - torch::tensor(engine.weight).view({200, 3})).abs().max().item<double>(), 1e-6);
    const Tensor load = torch::bincount(ours.expert.flatten(), {}, 8);
    EXPECT_GT(load.min().item<int64_t>(), 40) << "of 75 on average";
  }
}

TEST(ExpertChoice, EveryExpertTakesItsBestRows) {
  torch::manual_seed(4);
  const MoeConfig config{.experts = 8, .active = 2, .expert_choice = true};
  const Tensor logits = torch::randn({40, 8}).requires_grad_();
  const Routing routing = choose_rows(logits, config);
  const Tensor scores = logits.softmax(-1);
  for (int64_t e = 0; e < 8; ++e) {
    const Tensor rows = std::get<0>(torch::where(routing.expert == e)[0].sort());
    EXPECT_TRUE(torch::equal(rows, std::get<0>(std::get<1>(scores.select(1, e).topk(10)).sort()))) << e;
  }
  EXPECT_EQ(((routing.expert < 0) & (routing.weight != 0)).sum().item<int64_t>(), 0);
  routing.weight.sum().backward();
  EXPECT_GT(logits.grad().abs().max().item<double>(), 0);
}

INSTANTIATE_TEST_SUITE_P(Every, Routers, testing::ValuesIn(variants()), [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace hadal::train
