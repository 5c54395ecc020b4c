#include "model/expert_balance.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "core/pool.h"

namespace hadal {
namespace {

constexpr float nowhere = -std::numeric_limits<float>::infinity();

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.)); }

// E[max - min] of n independent standard normal numbers (Tippett 1925): the integral of 1 - F^n - (1 - F)^n.
double expected_range(int64_t n) {
  constexpr double step = 1. / 256;
  double sum = 0;
  for (double x = -9; x <= 9; x += step) {
    const double f = normal_cdf(x);
    sum += 1 - std::pow(f, double(n)) - std::pow(1 - f, double(n));
  }
  return sum * step;
}

// What has to be reached for a place: by those that have one the best of the rest, by the rest the last of those.
struct Places {
  float last = nowhere, next = nowhere;
};

Places places(std::span<const float> choice, int64_t active) {
  thread_local std::vector<float> best;  // the active + 1 greatest, descending
  best.assign(size_t(active) + 1, nowhere);
  for (const float v : choice) {
    if (v <= best.back()) continue;
    const auto at = std::upper_bound(best.begin(), best.end(), v, std::greater<>());
    std::move_backward(at, best.end() - 1, best.end());
    *at = v;
  }
  return {best[size_t(active) - 1], best[size_t(active)]};
}

float group_rank(std::span<const float> group, GroupScore kind) {
  const Places best = places(group, 1);
  return kind == GroupScore::best || group.size() < 2 ? best.last : best.last + best.next;
}

// Experts of groups that are not chosen are put out of `choice`; `gap` is how far each group is from being chosen, 0 for those that are.
void limit_groups(std::span<float> choice, const MoeConfig& c, std::vector<float>& gap) {
  const size_t size = choice.size() / size_t(c.groups);
  std::vector<float> ranks(static_cast<size_t>(c.groups));
  for (size_t g = 0; g < ranks.size(); ++g) ranks[g] = group_rank(choice.subspan(g * size, size), c.group_score);
  std::vector<size_t> order(ranks.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return ranks[a] > ranks[b]; });
  gap.assign(ranks.size(), 0);
  for (size_t i = size_t(c.active_groups); i < order.size(); ++i) {
    gap[order[i]] = ranks[order[size_t(c.active_groups) - 1]] - ranks[order[i]];
    std::ranges::fill(choice.subspan(order[i] * size, size), nowhere);
  }
}

class Margins {  // of every row for every expert: positive where it is chosen
 public:
  Margins(Mat<const float> scores, const MoeConfig& config)
      : scores_(scores), config_(config), margin_(size_t(scores.rows * scores.cols)) {}

  void compute(std::span<const float> bias) {
    constexpr int64_t block = 512;
    pool().run((scores_.rows + block - 1) / block, [&](int64_t task) {
      for (int64_t row = task * block; row < std::min(scores_.rows, (task + 1) * block); ++row) compute_row(row, bias);
    });
  }
  std::span<float> of(int64_t expert) { return {margin_.data() + expert * scores_.rows, size_t(scores_.rows)}; }

 private:
  void compute_row(int64_t row, std::span<const float> bias) {
    thread_local std::vector<float> choice, gap;
    const size_t experts = bias.size(), group = experts / size_t(config_.groups);
    choice.resize(experts);
    std::transform(bias.begin(), bias.end(), scores_.row(row), choice.begin(), std::plus<>());
    gap.assign(size_t(config_.groups), 0);
    if (config_.groups > 1) limit_groups(choice, config_, gap);
    const Places p = places(choice, config_.active);
    for (size_t e = 0; e < experts; ++e) {
      const float wanted = scores_.row(row)[e] + bias[e], missing = gap[e / group];
      const float margin = wanted - (choice[e] >= p.last ? p.next : p.last);
      margin_[e * size_t(scores_.rows) + size_t(row)] = choice[e] == nowhere ? std::min(margin, -missing) : margin;
    }
  }

  Mat<const float> scores_;
  const MoeConfig& config_;
  std::vector<float> margin_;  // [experts, rows]
};

// Between the value that is the `count`th greatest and the next; reorders them.
float upper_quantile(std::span<float> values, int64_t count) {
  const auto at = values.begin() + count;
  std::nth_element(values.begin(), at, values.end(), std::greater<>());
  const float next = *at, last = *std::min_element(values.begin(), at);
  return 0.5f * (last + next);
}

}  // namespace

double spread_floor(int64_t rows, int64_t experts, int64_t active) {
  if (rows == 0 || experts < 2 || active == experts) return 0;
  // Loads are nearly normal with variance rows * p (1 - p), and correlate by -1 / (experts - 1) because their sum is fixed.
  const double p = double(active) / double(experts);
  return expected_range(experts) * std::sqrt((1 - p) / (double(rows) * p) * double(experts) / double(experts - 1));
}

LoadFigures load_figures(std::span<const int64_t> load, int64_t active) {
  const double experts = double(load.size()), all = double(std::accumulate(load.begin(), load.end(), int64_t(0)));
  LoadFigures f;
  f.rows = std::llround(all) / active;
  f.dead = std::ranges::count(load, 0);
  if (all == 0) return f;
  const double mean = all / experts, max = double(*std::ranges::max_element(load)), min = double(*std::ranges::min_element(load));
  f.spread = (max - min) / mean;
  f.floor = spread_floor(f.rows, int64_t(load.size()), active);
  f.max_violation = max / mean - 1;
  f.min_violation = 1 - min / mean;
  double squares = 0, entropy = 0;
  for (const int64_t n : load) {
    squares += (double(n) - mean) * (double(n) - mean);
    if (n > 0) entropy -= double(n) / all * std::log(double(n) / all);
  }
  f.variation = std::sqrt(squares / experts) / mean;
  f.entropy = load.size() > 1 ? entropy / std::log(experts) : 1;
  return f;
}

double fit_selection_bias(Mat<const float> scores, const MoeConfig& config, std::span<float> bias, const BiasFit& fit) {
  CHECK(scores.cols == config.experts && int64_t(bias.size()) == config.experts);
  const int64_t share = scores.rows * config.active / config.experts;  // rows that each expert shall have
  if (share < 1 || share >= scores.rows) return 0;
  const float mean = std::accumulate(bias.begin(), bias.end(), 0.f) / float(bias.size());
  Margins margins(scores, config);
  std::vector<float> now(bias.begin(), bias.end()), move(bias.size());
  std::vector<int64_t> load(bias.size());
  double best = std::numeric_limits<double>::infinity();
  for (int64_t sweep = 0; sweep <= fit.sweeps; ++sweep) {
    margins.compute(now);
    pool().run(config.experts, [&](int64_t e) {
      const std::span<float> own = margins.of(e);
      load[size_t(e)] = std::ranges::count_if(own, [](float m) { return m > 0; });
      move[size_t(e)] = upper_quantile(own, share);
    });
    const double spread = load_figures(load, config.active).spread;
    if (spread < best) {
      best = spread;
      std::ranges::copy(now, bias.begin());
    }
    if (best <= fit.tolerance) break;
    for (size_t e = 0; e < now.size(); ++e)
      if (std::isfinite(move[e])) now[e] -= float(fit.step) * move[e];
    const float drift = std::accumulate(now.begin(), now.end(), 0.f) / float(now.size()) - mean;
    for (float& b : now) b -= drift;
  }
  return best;
}

}  // namespace hadal
