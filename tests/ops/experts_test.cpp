// experts() against one row and one expert at a time.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "ops/ops.h"

namespace hadal {
namespace {

struct Bank {
  int64_t dim, hidden;
  std::vector<std::vector<float>> gate, up, down;
  std::vector<std::array<Weight, 3>> weights;

  Bank(int64_t count, int64_t d, int64_t h) : dim(d), hidden(h), gate(size_t(count)), up(size_t(count)), down(size_t(count)) {
    std::mt19937 random(9);
    std::normal_distribution<float> normal(0, 1 / std::sqrt(float(d)));
    for (auto* all : {&gate, &up, &down})
      for (auto& w : *all) {
        w.resize(size_t(d * h));
        for (float& v : w) v = normal(random);
      }
    const auto as_weight = [](std::vector<float>& w, int64_t rows, int64_t cols) {
      return Weight{DType::f32, rows, cols, reinterpret_cast<const std::byte*>(w.data())};
    };
    for (size_t e = 0; e < size_t(count); ++e)
      weights.push_back({as_weight(gate[e], h, d), as_weight(up[e], h, d), as_weight(down[e], d, h)});
  }
  ExpertWeights operator()(int32_t e) const { return {weights[size_t(e)][0], weights[size_t(e)][1], weights[size_t(e)][2]}; }
};

// Hands out the experts last first, one more at a time, as a disk might.
class Trickle : public ExpertSource {
 public:
  explicit Trickle(const Bank& bank) : bank_(bank) {}
  void begin(std::span<const int32_t> experts) override {
    left_.assign(experts.begin(), experts.end());
    step_ = 0;
  }
  std::vector<ReadyExpert> next() override {
    std::vector<ReadyExpert> ready;
    for (++step_; !left_.empty() && int64_t(ready.size()) < step_; left_.pop_back()) ready.push_back({left_.back(), bank_(left_.back())});
    return ready;
  }

 private:
  const Bank& bank_;
  std::vector<int32_t> left_;
  int64_t step_ = 0;
};

std::vector<double> one_by_one(const Bank& bank, const std::vector<float>& x, const Route& route, int64_t rows) {
  std::vector<double> out(size_t(rows * bank.dim), 1.0);
  for (int64_t pair = 0; pair < rows * route.active; ++pair) {
    const size_t e = size_t(route.expert[size_t(pair)]);
    const float* row = x.data() + pair / route.active * bank.dim;
    std::vector<double> hidden(size_t(bank.hidden), 0);
    for (int64_t j = 0; j < bank.hidden; ++j) {
      double gate = 0, up = 0;
      for (int64_t i = 0; i < bank.dim; ++i) {
        gate += double(bank.gate[e][size_t(j * bank.dim + i)]) * row[i];
        up += double(bank.up[e][size_t(j * bank.dim + i)]) * row[i];
      }
      hidden[size_t(j)] = gate / (1 + std::exp(-gate)) * up;
    }
    for (int64_t i = 0; i < bank.dim; ++i)
      for (int64_t j = 0; j < bank.hidden; ++j)
        out[size_t(pair / route.active * bank.dim + i)] +=
            route.weight[size_t(pair)] * bank.down[e][size_t(i * bank.hidden + j)] * hidden[size_t(j)];
  }
  return out;
}

Route random_route(int64_t rows, int32_t experts, int64_t active) {
  std::mt19937 random(4);
  Route route{active, {}, {}};
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<int32_t> all;
    for (int32_t e = 0; e < experts; ++e)
      if (e != 1) all.push_back(e);  // expert 1 stays idle
    std::shuffle(all.begin(), all.end(), random);
    std::sort(all.begin(), all.begin() + active);
    for (int64_t i = 0; i < active; ++i) {
      route.expert.push_back(all[size_t(i)]);
      route.weight.push_back(float(1 + i) / 4);
    }
  }
  return route;
}

TEST(Experts, EqualOneRowAtATime) {
  const Bank bank(5, 31, 45);
  Trickle source(bank);
  ExpertScratch scratch;
  for (const int64_t rows : {0, 1, 7, 16, 127}) {
    const Route route = random_route(rows, 5, 2);
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    std::vector<float> x(size_t(rows * bank.dim));
    for (float& v : x) v = normal(random);
    std::vector<float> out(x.size(), 1.f);
    experts({out.data(), rows, bank.dim, bank.dim}, {x.data(), rows, bank.dim, bank.dim}, route, source, scratch);
    const std::vector<double> want = one_by_one(bank, x, route, rows);
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(out[i], want[i], 1e-4) << "rows " << rows << " element " << i;
    if (rows == 0) continue;
    // The first row alone gives the same bits.
    const Route first{2, {route.expert[0], route.expert[1]}, {route.weight[0], route.weight[1]}};
    std::vector<float> alone(size_t(bank.dim), 1.f);
    experts({alone.data(), 1, bank.dim, bank.dim}, {x.data(), 1, bank.dim, bank.dim}, first, source, scratch);
    EXPECT_EQ(0, std::memcmp(alone.data(), out.data(), alone.size() * sizeof(float)));
  }
}

}  // namespace
}  // namespace hadal
