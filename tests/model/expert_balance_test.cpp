// Figures of loads by hand and by lot, and selection biases that make the choice even.
#include "model/expert_balance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace hadal {
namespace {

TEST(LoadFigures, ByHand) {
  const std::vector<int64_t> load{30, 10, 20, 0};
  const LoadFigures f = load_figures(load, 2);
  EXPECT_EQ(f.rows, 30);
  EXPECT_EQ(f.dead, 1);
  EXPECT_DOUBLE_EQ(f.spread, 2);
  EXPECT_DOUBLE_EQ(f.max_violation, 1);
  EXPECT_DOUBLE_EQ(f.min_violation, 1);
  EXPECT_NEAR(f.variation, std::sqrt(125.) / 15, 1e-12);
  EXPECT_NEAR(f.entropy, -(0.5 * std::log(0.5) + std::log(1 / 6.) / 6 + std::log(1 / 3.) / 3) / std::log(4.), 1e-12);
  EXPECT_EQ(load_figures(std::vector<int64_t>{0, 0}, 1).spread, 0);
  EXPECT_DOUBLE_EQ(load_figures(std::vector<int64_t>{5, 5}, 1).entropy, 1);
}

TEST(LoadFigures, FloorIsWhatALotShows) {
  std::mt19937_64 random(1);
  for (const auto& [experts, active] : {std::pair<int64_t, int64_t>{8, 1}, {8, 2}, {64, 6}}) {
    constexpr int64_t rows = 20'000, times = 60;
    double sum = 0;
    std::vector<int64_t> order(static_cast<size_t>(experts));
    for (int64_t time = 0; time < times; ++time) {
      std::vector<int64_t> load(size_t(experts), 0);
      std::iota(order.begin(), order.end(), 0);
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t i = 0; i < active; ++i) {
          std::swap(order[size_t(i)], order[size_t(i) + random() % size_t(experts - i)]);
          ++load[size_t(order[size_t(i)])];
        }
      sum += load_figures(load, active).spread;
    }
    const double floor = spread_floor(rows, experts, active);
    EXPECT_NEAR(sum / times, floor, 0.1 * floor) << experts << " experts, " << active << " active";
  }
}

struct Toy {  // rows of unequal clusters
  MoeConfig config;
  std::vector<float> scores(int64_t rows, uint64_t seed) const {
    std::mt19937_64 fixed(5), random(seed);
    std::normal_distribution<float> normal;
    std::vector<std::vector<float>> center(20, std::vector<float>(size_t(config.experts)));
    std::vector<double> size;
    for (auto& c : center) {
      for (float& v : c) v = normal(fixed);
      size.push_back(1 / double(size.size() + 1));
    }
    std::discrete_distribution<size_t> cluster(size.begin(), size.end());
    std::vector<float> all;
    for (int64_t row = 0; row < rows; ++row)
      for (const float v : center[cluster(random)]) all.push_back(1 / (1 + std::exp(-(v + normal(random)))));
    return all;
  }
  Mat<const float> mat(const std::vector<float>& s) const {
    return {s.data(), int64_t(s.size()) / config.experts, config.experts, config.experts};
  }
  double spread(const std::vector<float>& s, std::vector<float> bias) const {
    return fit_selection_bias(mat(s), config, bias, {.sweeps = 0});
  }
};

TEST(FitSelectionBias, OtherRowsAreEvenWithinWhatChanceAllows) {
  for (const auto& [experts, active] : {std::pair<int64_t, int64_t>{8, 1}, {8, 2}, {64, 6}}) {
    const Toy toy{{.experts = experts, .active = active, .score = RouterScore::sigmoid, .bias = true}};
    constexpr int64_t rows = 60'000;
    const std::vector<float> fitted_on = toy.scores(rows, 1), others = toy.scores(rows, 2);
    std::vector<float> bias(size_t(experts), 0.f);
    EXPECT_GT(toy.spread(others, bias), 0.3);
    EXPECT_LE(fit_selection_bias(toy.mat(fitted_on), toy.config, bias), 0.005);
    EXPECT_NEAR(std::accumulate(bias.begin(), bias.end(), 0.), 0, 1e-4);
    // The fit has the chance of its own rows in it, the spread that of the others: of equal size, so their root of squares.
    const double spread = toy.spread(others, bias);
    EXPECT_LE(spread, 1.7 * std::sqrt(2.) * spread_floor(rows, experts, active)) << experts << " experts, " << active << " active";
  }
}

TEST(FitSelectionBias, WithinGroups) {
  const Toy toy{{.experts = 32,
                 .active = 4,
                 .groups = 8,
                 .active_groups = 4,
                 .score = RouterScore::sigmoid,
                 .group_score = GroupScore::top2_sum,
                 .bias = true}};
  const std::vector<float> scores = toy.scores(30'000, 3);
  std::vector<float> bias(32, 0.f);
  const double before = toy.spread(scores, bias);
  EXPECT_LE(fit_selection_bias(toy.mat(scores), toy.config, bias), 0.05 * before);
}

TEST(FitSelectionBias, NothingToBalance) {
  const Toy toy{{.experts = 8, .active = 8, .bias = true}};
  const std::vector<float> scores = toy.scores(100, 3);
  std::vector<float> bias(8, 1.f);
  EXPECT_EQ(fit_selection_bias(toy.mat(scores), toy.config, bias), 0);
  EXPECT_EQ(fit_selection_bias({nullptr, 0, 8, 8}, toy.config, bias), 0);
  EXPECT_EQ(bias, std::vector<float>(8, 1.f));
}

}  // namespace
}  // namespace hadal
