// From logits to a token. Definitions follow transformers' logits processors (generation/logits_process.py) and,
// for presence and frequency, the OpenAI interface.
#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace hadal {

struct Sampling {
  float temperature = 1;  // 0: greedy
  int32_t top_k = 0;      // 0: all
  float top_p = 1, min_p = 0;
  float repeat_penalty = 1;                           // over prompt and reply
  float presence_penalty = 0, frequency_penalty = 0;  // over the reply
  std::vector<std::pair<int32_t, float>> logit_bias;
  uint64_t seed = 0;
  void check(int64_t vocab) const;  // Error names the field that is out of range
};

struct Logprob {
  int32_t token;
  float logprob;
};

// Changes `logits`. The draw depends on (seed, position) only, so a reply does not change with its neighbours in the batch.
int32_t sample(std::span<float> logits, const Sampling& how, std::span<const int32_t> prompt, std::span<const int32_t> reply,
               uint64_t position);

// Natural log-probabilities of `token` first, then of the `count` likeliest tokens, before any of the above.
std::vector<Logprob> logprobs(std::span<const float> logits, int32_t token, int64_t count);

}  // namespace hadal
