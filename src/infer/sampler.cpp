#include "infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "core/error.h"
#include "core/random.h"

namespace hadal {
namespace {

constexpr float excluded = -std::numeric_limits<float>::infinity();

double uniform(uint64_t seed, uint64_t position) {  // in [0, 1)
  return double(mix_bits(mix_bits(seed) ^ position) >> 11) * 0x1p-53;
}

int32_t greedy(std::span<const float> logits) { return int32_t(std::max_element(logits.begin(), logits.end()) - logits.begin()); }

// Repetition divides positive and multiplies negative logits (CTRL, Keskar et al. 2019), once per token seen.
void penalize(std::span<float> logits, const Sampling& how, std::span<const int32_t> prompt, std::span<const int32_t> reply) {
  if (how.repeat_penalty != 1) {
    std::vector<int32_t> seen(prompt.begin(), prompt.end());
    seen.insert(seen.end(), reply.begin(), reply.end());
    std::ranges::sort(seen);
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    for (const int32_t token : seen) {
      float& logit = logits[size_t(token)];
      logit = logit < 0 ? logit * how.repeat_penalty : logit / how.repeat_penalty;
    }
  }
  if (how.presence_penalty == 0 && how.frequency_penalty == 0) return;
  std::unordered_map<int32_t, int32_t> counts;
  for (const int32_t token : reply) ++counts[token];
  for (const auto& [token, count] : counts) logits[size_t(token)] -= how.presence_penalty + how.frequency_penalty * float(count);
}

struct Candidate {
  int32_t token;
  double weight;  // its logit, later exp(logit - max)
};

bool likelier(const Candidate& a, const Candidate& b) { return a.weight != b.weight ? a.weight > b.weight : a.token < b.token; }

// Brings the `count` likeliest to the front, in order; equal ones go by token.
void sort_head(std::vector<Candidate>& c, size_t count) {
  if (count < c.size()) std::nth_element(c.begin(), c.begin() + ptrdiff_t(count), c.end(), likelier);
  std::sort(c.begin(), c.begin() + ptrdiff_t(std::min(count, c.size())), likelier);
}

std::vector<Candidate> candidates(std::span<const float> logits) {
  std::vector<Candidate> all;
  all.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i)
    if (logits[i] > excluded) all.push_back({int32_t(i), logits[i]});
  return all;
}

void keep_top_k(std::vector<Candidate>& c, int32_t top_k) {
  if (top_k == 0 || size_t(top_k) >= c.size()) return;
  sort_head(c, size_t(top_k));
  c.resize(size_t(top_k));
}

// The fewest candidates whose probabilities add up to top_p; always one. Sorts no more of them than it must.
void keep_top_p(std::vector<Candidate>& c, float top_p) {
  if (top_p >= 1) return;
  double total = 0;
  for (const Candidate& x : c) total += x.weight;
  for (size_t head = 128;; head *= 8) {
    sort_head(c, head);
    double sum = 0;
    for (size_t kept = 0; kept < std::min(head, c.size()); ++kept) {
      sum += c[kept].weight;
      if (sum >= double(top_p) * total) return c.resize(kept + 1);
    }
    if (head >= c.size()) return;
  }
}

void keep_min_p(std::vector<Candidate>& c, float min_p) {
  if (min_p <= 0) return;
  double greatest = 0;
  for (const Candidate& x : c) greatest = std::max(greatest, x.weight);
  std::erase_if(c, [&](const Candidate& x) { return x.weight < double(min_p) * greatest; });
}

}  // namespace

void Sampling::check(int64_t vocab) const {
  const auto require = [](bool holds, const char* field, const char* expected, double found) {
    if (!holds) throw Error("{}: expected {}, found {}", field, expected, found);
  };
  require(temperature >= 0 && std::isfinite(temperature), "temperature", "a number of 0 or more", temperature);
  require(top_k >= 0, "top_k", "a number of 0 or more (0: all tokens)", top_k);
  require(top_p > 0 && top_p <= 1, "top_p", "a number above 0 and up to 1", top_p);
  require(min_p >= 0 && min_p <= 1, "min_p", "a number from 0 to 1", min_p);
  require(repeat_penalty > 0 && std::isfinite(repeat_penalty), "repeat_penalty", "a number above 0", repeat_penalty);
  require(std::isfinite(presence_penalty), "presence_penalty", "a finite number", presence_penalty);
  require(std::isfinite(frequency_penalty), "frequency_penalty", "a finite number", frequency_penalty);
  for (const auto& [token, bias] : logit_bias) {
    if (token < 0 || token >= vocab) throw Error("logit_bias: expected a token in [0, {}), found {}", vocab, token);
    require(!std::isnan(bias), "logit_bias", "a number", bias);
  }
}

int32_t sample(std::span<float> logits, const Sampling& how, std::span<const int32_t> prompt, std::span<const int32_t> reply,
               uint64_t position) {
  for (const auto& [token, bias] : how.logit_bias) logits[size_t(token)] += bias;
  penalize(logits, how, prompt, reply);
  if (how.temperature == 0) return greedy(logits);

  for (float& logit : logits) logit /= how.temperature;
  const double max = *std::max_element(logits.begin(), logits.end());
  std::vector<Candidate> c = candidates(logits);
  if (c.empty() || !std::isfinite(max)) return greedy(logits);
  keep_top_k(c, how.top_k);
  for (Candidate& x : c) x.weight = std::exp(x.weight - max);
  keep_top_p(c, how.top_p);
  keep_min_p(c, how.min_p);

  double total = 0;
  for (const Candidate& x : c) total += x.weight;
  double left = uniform(how.seed, position) * total;
  for (const Candidate& x : c)
    if ((left -= x.weight) < 0) return x.token;
  return c.back().token;
}

std::vector<Logprob> logprobs(std::span<const float> logits, int32_t token, int64_t count) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float v : logits) sum += std::exp(double(v) - max);
  const double log_sum = max + std::log(sum);
  std::vector<Candidate> best = candidates(logits);
  sort_head(best, size_t(count));
  best.resize(std::min(best.size(), size_t(count)));
  std::vector<Logprob> result{{token, float(double(logits[size_t(token)]) - log_sum)}};
  for (const Candidate& c : best) result.push_back({c.token, float(c.weight - log_sum)});
  return result;
}

}  // namespace hadal
