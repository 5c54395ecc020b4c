// Every control against its definition, written out plainly; draws against their probabilities.
#include "infer/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "core/error.h"

namespace hadal {
namespace {

std::vector<float> some_logits(size_t n, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> x(n);
  for (float& v : x) v = normal(random);
  return x;
}

std::vector<double> softmax(const std::vector<float>& logits, double temperature = 1) {
  double max = -1e300, sum = 0;
  for (const float v : logits) max = std::max(max, double(v) / temperature);
  std::vector<double> p;
  for (const float v : logits) sum += p.emplace_back(std::exp(double(v) / temperature - max));
  for (double& v : p) v /= sum;
  return p;
}

// Frequencies over many positions.
std::map<int32_t, double> draw(const std::vector<float>& logits, const Sampling& how, int draws = 20000) {
  std::map<int32_t, double> seen;
  for (int i = 0; i < draws; ++i) {
    std::vector<float> copy = logits;
    seen[sample(copy, how, {}, {}, uint64_t(i))] += 1.0 / draws;
  }
  return seen;
}

void expect_distribution(const std::map<int32_t, double>& seen, const std::map<int32_t, double>& want) {
  for (const auto& [token, p] : seen) EXPECT_TRUE(want.contains(token)) << "token " << token << " must never be drawn, seen " << p;
  for (const auto& [token, p] : want) {
    const auto at = seen.find(token);
    EXPECT_NEAR(at == seen.end() ? 0 : at->second, p, 5 * std::sqrt(p * (1 - p) / 20000) + 1e-4) << "token " << token;
  }
}

// The kept tokens' probabilities, divided by their sum.
std::map<int32_t, double> renormalized(const std::vector<double>& p, const std::vector<int32_t>& kept) {
  double sum = 0;
  std::map<int32_t, double> want;
  for (const int32_t t : kept) sum += p[size_t(t)];
  for (const int32_t t : kept) want[t] = p[size_t(t)] / sum;
  return want;
}

std::vector<int32_t> by_probability(const std::vector<double>& p) {
  std::vector<int32_t> order(p.size());
  for (size_t i = 0; i < p.size(); ++i) order[i] = int32_t(i);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return p[size_t(a)] > p[size_t(b)]; });
  return order;
}

TEST(Sample, GreedyTakesTheFirstOfEqualMaxima) {
  std::vector<float> logits{1, 7, 3, 7};
  EXPECT_EQ(sample(logits, {.temperature = 0, .logit_bias = {}}, {}, {}, 0), 1);
}

TEST(Sample, TemperatureDividesTheLogits) {
  const std::vector<float> logits = some_logits(12);
  for (const float t : {0.5f, 1.f, 2.f}) {
    const std::vector<double> p = softmax(logits, t);
    expect_distribution(draw(logits, {.temperature = t, .logit_bias = {}}), renormalized(p, by_probability(p)));
  }
}

TEST(Sample, TopKKeepsTheLikeliest) {
  const std::vector<float> logits = some_logits(300);
  const std::vector<double> p = softmax(logits);
  for (const int32_t k : {1, 2, 5, 17}) {
    std::vector<int32_t> kept = by_probability(p);
    kept.resize(size_t(k));
    expect_distribution(draw(logits, {.top_k = k, .logit_bias = {}}), renormalized(p, kept));
  }
}

TEST(Sample, TopPKeepsTheFewestThatReachIt) {
  for (const size_t n : {8u, 1000u}) {
    const std::vector<float> logits = some_logits(n, 3);
    const std::vector<double> p = softmax(logits);
    const std::vector<int32_t> order = by_probability(p);
    for (const float top_p : {1e-6f, 0.3f, 0.9f}) {
      std::vector<int32_t> kept;
      for (double sum = 0; sum < double(top_p); sum += p[size_t(kept.back())]) kept.push_back(order[kept.size()]);
      expect_distribution(draw(logits, {.top_p = top_p, .logit_bias = {}}), renormalized(p, kept));
    }
  }
}

TEST(Sample, MinPIsRelativeToTheLikeliest) {
  const std::vector<float> logits = some_logits(40, 5);
  const std::vector<double> p = softmax(logits);
  const std::vector<int32_t> order = by_probability(p);
  std::vector<int32_t> kept;
  for (const int32_t t : order)
    if (p[size_t(t)] >= 0.2 * p[size_t(order[0])]) kept.push_back(t);
  ASSERT_GT(kept.size(), 1u);
  expect_distribution(draw(logits, {.min_p = 0.2f, .logit_bias = {}}), renormalized(p, kept));
}

TEST(Sample, PenaltiesFollowTheirDefinitions) {
  const std::vector<int32_t> prompt{0, 1}, reply{1, 2, 2, 2};
  std::vector<float> logits{2, 2, 2, -2, 2};
  const Sampling how{
      .temperature = 0, .repeat_penalty = 2, .presence_penalty = 0.25f, .frequency_penalty = 0.5f, .logit_bias = {{3, 1.f}, {4, -100.f}}};
  sample(logits, how, prompt, reply, 0);
  EXPECT_THAT(logits, testing::ElementsAre(1, 1 - 0.75f, 1 - 1.75f, -1, -98));
  std::vector<float> negative{-2, 0};
  sample(negative, {.temperature = 0, .repeat_penalty = 2, .logit_bias = {}}, prompt, {}, 0);
  EXPECT_FLOAT_EQ(negative[0], -4);
}

TEST(Sample, DependsOnSeedAndPositionOnly) {
  const std::vector<float> logits = some_logits(50);
  std::vector<int32_t> first, second, other;
  for (uint64_t i = 0; i < 64; ++i) {
    std::vector<float> a = logits, b = logits, c = logits;
    first.push_back(sample(a, {.logit_bias = {}, .seed = 7}, {}, {}, i));
    std::vector<float> noise = some_logits(50, uint32_t(i));
    sample(noise, {.logit_bias = {}, .seed = 9}, {}, {}, 3);
    second.push_back(sample(b, {.logit_bias = {}, .seed = 7}, {}, {}, i));
    other.push_back(sample(c, {.logit_bias = {}, .seed = 8}, {}, {}, i));
  }
  EXPECT_EQ(first, second);
  EXPECT_NE(first, other);
}

TEST(Sample, SurvivesMaskedAndBrokenLogits) {
  std::vector<float> masked{-INFINITY, 3, -INFINITY};
  EXPECT_EQ(sample(masked, {.logit_bias = {}}, {}, {}, 0), 1);
  std::vector<float> nothing{-INFINITY, -INFINITY}, broken{NAN, NAN};
  EXPECT_EQ(sample(nothing, {.logit_bias = {}}, {}, {}, 0), 0);
  EXPECT_EQ(sample(broken, {.logit_bias = {}}, {}, {}, 0), 0);
}

TEST(Sampling, NamesTheFieldThatIsOutOfRange) {
  const auto message = [](const Sampling& s) -> std::string {
    try {
      s.check(10);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message({.logit_bias = {}}), "");
  EXPECT_THAT(message({.temperature = -1, .logit_bias = {}}), testing::HasSubstr("temperature"));
  EXPECT_THAT(message({.temperature = NAN, .logit_bias = {}}), testing::HasSubstr("temperature"));
  EXPECT_THAT(message({.top_k = -2, .logit_bias = {}}), testing::HasSubstr("top_k"));
  EXPECT_THAT(message({.top_p = 0, .logit_bias = {}}), testing::HasSubstr("top_p"));
  EXPECT_THAT(message({.min_p = 1.5f, .logit_bias = {}}), testing::HasSubstr("min_p"));
  EXPECT_THAT(message({.repeat_penalty = 0, .logit_bias = {}}), testing::HasSubstr("repeat_penalty"));
  EXPECT_THAT(message({.logit_bias = {{10, 1.f}}}), testing::HasSubstr("[0, 10)"));
}

TEST(Logprobs, AreNaturalAndSorted) {
  const std::vector<float> logits{0, 1, 2, 3};
  const std::vector<double> p = softmax(logits);
  const std::vector<Logprob> result = logprobs(logits, 1, 3);
  ASSERT_EQ(result.size(), 4u);
  EXPECT_EQ(result[0].token, 1);
  EXPECT_NEAR(result[0].logprob, std::log(p[1]), 1e-6);
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(result[size_t(i + 1)].token, 3 - i);
    EXPECT_NEAR(result[size_t(i + 1)].logprob, std::log(p[size_t(3 - i)]), 1e-6);
  }
  EXPECT_EQ(logprobs(logits, 0, 0).size(), 1u);
  EXPECT_EQ(logprobs(logits, 0, 99).size(), 5u);
}

}  // namespace
}  // namespace hadal
