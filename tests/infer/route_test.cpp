// choose_experts() by hand-made cases of each published rule.
#include "infer/route.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace hadal {
namespace {

using testing::ElementsAre;
using testing::FloatNear;

Route choose(std::vector<float> logits, const MoeConfig& config, const std::vector<float>& bias = {}) {
  Route route;
  const int64_t n = int64_t(logits.size());
  choose_experts(route, {logits.data(), 1, n, n}, config, bias.empty() ? nullptr : bias.data());
  return route;
}

float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

TEST(Route, SoftmaxRunsOverAllExpertsAndIsNotRenormalized) {
  const Route route = choose({1, 3, 2, 0}, {.experts = 4, .active = 2});
  const float sum = std::exp(1.f) + std::exp(3.f) + std::exp(2.f) + 1;
  EXPECT_THAT(route.expert, ElementsAre(1, 2));
  EXPECT_THAT(route.weight, ElementsAre(FloatNear(std::exp(3.f) / sum, 1e-6f), FloatNear(std::exp(2.f) / sum, 1e-6f)));
}

TEST(Route, ScaleAndNormalization) {
  const Route route = choose({1, 3, 2, 0}, {.experts = 4, .active = 2, .normalize = true, .scale = 2.5f});
  EXPECT_NEAR(route.weight[0] + route.weight[1], 2.5f, 1e-6f);
  const Route single = choose({1, 3}, {.experts = 2, .active = 1, .normalize = true, .scale = 2});
  EXPECT_NEAR(single.weight[0], 2 * std::exp(3.f) / (std::exp(1.f) + std::exp(3.f)), 1e-6f) << "one expert is never normalized";
}

TEST(Route, RootOfSoftplus) {
  const Route route = choose({1, 30, -2}, {.experts = 3, .active = 2, .score = RouterScore::sqrt_softplus});
  EXPECT_THAT(route.expert, ElementsAre(0, 1));
  EXPECT_THAT(route.weight, ElementsAre(FloatNear(std::sqrt(std::log1p(std::exp(1.f))), 1e-6f), FloatNear(std::sqrt(30.f), 1e-5f)));
}

TEST(Route, HashedTokensHaveTheirExpertsWhateverTheScores) {
  const MoeConfig config{.experts = 16, .active = 4, .hash_layers = 2};
  const std::vector<int32_t> tokens{7, 8, 7};
  const auto experts_of = [&](float x, int64_t layer) {
    std::vector<float> logits(48, x);
    Route route;
    hash_experts(route, {logits.data(), 3, 16, 16}, config, tokens, layer);
    EXPECT_THAT(route.weight, testing::Each(FloatNear(1 / 16.f, 1e-6f)));
    return route.expert;
  };
  const std::vector<int32_t> first = experts_of(1, 0);
  EXPECT_EQ(first, experts_of(2, 0));
  EXPECT_NE(first, experts_of(1, 1));
  EXPECT_TRUE(std::equal(first.begin(), first.begin() + 4, first.begin() + 8)) << "the same token";
  for (int64_t row = 0; row < 3; ++row)
    for (int64_t i = 1; i < 4; ++i) EXPECT_LT(first[size_t(row * 4 + i - 1)], first[size_t(row * 4 + i)]);
}

TEST(Route, GroupsByTheirBestExpert) {
  // Groups {0,1} {2,3} {4,5}: the second best expert overall, 1, shares the best group; 4 beats 2 only as a group's best.
  const Route route = choose({5, 4, 1, 2, 3, -9}, {.experts = 6, .active = 3, .groups = 3, .active_groups = 2});
  EXPECT_THAT(route.expert, ElementsAre(0, 1, 4));
  const Route one = choose({5, -1, 4, 4.5f, 3, 0}, {.experts = 6, .active = 2, .groups = 3, .active_groups = 1});
  EXPECT_THAT(one.expert, ElementsAre(0, 1)) << "only the best group may be chosen from";
}

TEST(Route, GroupsByTheSumOfTheirTopTwoAndBiasForSelectionOnly) {
  const MoeConfig config{.experts = 6,
                         .active = 2,
                         .groups = 2,
                         .active_groups = 1,
                         .score = RouterScore::sigmoid,
                         .group_score = GroupScore::top2_sum,
                         .bias = true,
                         .scale = 1};
  // The best single expert is 0, but the second group's best two add up to more.
  EXPECT_THAT(choose({4, -4, -4, 2, 2, -4}, config, std::vector<float>(6, 0.f)).expert, ElementsAre(3, 4));
  const Route route = choose({4, -4, -4, 2, 2, -4}, config, {0, 1, 0, 0, 0, 0});
  EXPECT_THAT(route.expert, ElementsAre(0, 1));
  EXPECT_THAT(route.weight, ElementsAre(FloatNear(sigmoid(4), 1e-6f), FloatNear(sigmoid(-4), 1e-6f)));
  // Excluded groups stay excluded when every kept score is negative (DeepSeek masks with -inf, not with 0).
  EXPECT_THAT(choose({0, 0, 0, 1, 1, 1}, config, std::vector<float>(6, -5.f)).expert, ElementsAre(3, 4));
}

TEST(Route, EqualScoresGoToTheLowerExpert) { EXPECT_THAT(choose({1, 1, 1, 1}, {.experts = 4, .active = 2}).expert, ElementsAre(0, 1)); }

}  // namespace
}  // namespace hadal
