#include "infer/route.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "core/pool.h"
#include "model/hash_route.h"

namespace hadal {
namespace {

constexpr float excluded = -std::numeric_limits<float>::infinity();

float sqrt_softplus(float x) { return std::sqrt(x > 20 ? x : std::log1p(std::exp(x))); }

void score(std::span<float> x, RouterScore kind) {
  if (kind != RouterScore::softmax) {
    for (float& v : x) v = kind == RouterScore::sigmoid ? 1.f / (1.f + std::exp(-v)) : sqrt_softplus(v);
    return;
  }
  const float max = *std::max_element(x.begin(), x.end());
  float sum = 0;
  for (float& v : x) sum += v = std::exp(v - max);
  for (float& v : x) v /= sum;
}

// The indices of the `count` greatest values, in ascending order of index.
std::vector<int32_t> greatest(std::span<const float> x, int64_t count) {
  std::vector<int32_t> order(x.size());
  for (size_t i = 0; i < x.size(); ++i) order[i] = int32_t(i);
  std::partial_sort(order.begin(), order.begin() + count, order.end(),
                    [&](int32_t a, int32_t b) { return x[size_t(a)] != x[size_t(b)] ? x[size_t(a)] > x[size_t(b)] : a < b; });
  order.resize(size_t(count));
  std::sort(order.begin(), order.end());
  return order;
}

float rank(std::span<const float> group, GroupScore kind) {
  float best = excluded, second = excluded;
  for (const float v : group) {
    if (v > best)
      second = best, best = v;
    else if (v > second)
      second = v;
  }
  return kind == GroupScore::best || group.size() < 2 ? best : best + second;
}

void exclude_groups(std::span<float> choice, const MoeConfig& c) {
  const size_t size = choice.size() / size_t(c.groups);
  std::vector<float> ranks;
  for (int64_t g = 0; g < c.groups; ++g) ranks.push_back(rank(choice.subspan(size_t(g) * size, size), c.group_score));
  const std::vector<int32_t> kept = greatest(ranks, c.active_groups);
  for (int64_t g = 0; g < c.groups; ++g)
    if (!std::binary_search(kept.begin(), kept.end(), int32_t(g))) std::ranges::fill(choice.subspan(size_t(g) * size, size), excluded);
}

// choose(row, scores): the row's experts, ascending.
template <class Choose>
void route_rows(Route& route, Mat<float> logits, const MoeConfig& c, Choose choose) {
  route.active = c.active;
  route.expert.resize(size_t(logits.rows * c.active));
  route.weight.resize(size_t(logits.rows * c.active));
  pool().run(logits.rows, [&](int64_t row) {
    const std::span<float> scores{logits.row(row), size_t(c.experts)};
    score(scores, c.score);
    const std::vector<int32_t> chosen = choose(row, scores);
    float sum = 0;
    for (const int32_t e : chosen) sum += scores[size_t(e)];
    const float factor = c.normalize && c.active > 1 ? c.scale / (sum + 1e-20f) : c.scale;
    for (int64_t i = 0; i < c.active; ++i) {
      route.expert[size_t(row * c.active + i)] = chosen[size_t(i)];
      route.weight[size_t(row * c.active + i)] = scores[size_t(chosen[size_t(i)])] * factor;
    }
  });
}

}  // namespace

void choose_experts(Route& route, Mat<float> logits, const MoeConfig& c, const float* bias) {
  route_rows(route, logits, c, [&](int64_t, std::span<const float> scores) {
    thread_local std::vector<float> choice;
    choice.assign(scores.begin(), scores.end());
    if (bias) std::transform(choice.begin(), choice.end(), bias, choice.begin(), std::plus<>());
    if (c.groups > 1) exclude_groups(choice, c);
    return greatest(choice, c.active);
  });
}

void hash_experts(Route& route, Mat<float> logits, const MoeConfig& c, std::span<const int32_t> tokens, int64_t layer) {
  route_rows(route, logits, c,
             [&](int64_t row, std::span<const float>) { return hash_experts(tokens[size_t(row)], layer, c.experts, c.active); });
}

}  // namespace hadal
