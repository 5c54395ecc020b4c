// Requests whose replies are written down, to the bit.
#pragma once
#include <cstdint>
#include <vector>

#include "infer/engine.h"

namespace hadal {

struct Reply {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;  // of every token: equal bits mean equal logits
  int finished = 0;
  Finish how = Finish::cancelled;
};

inline Request request_for(Reply& reply, int64_t prompt_length, int64_t max_tokens, uint64_t seed) {
  Request request;
  for (int64_t i = 0; i < prompt_length; ++i) request.prompt.push_back(int32_t((i * 31 + int64_t(seed) * 17) % 97));
  request.sampling.temperature = seed % 3 == 0 ? 0.f : 0.9f;
  request.sampling.seed = seed;
  request.max_tokens = max_tokens;
  request.logprobs = 0;
  request.on_token = [&reply](const Token& token) {
    reply.tokens.push_back(token.id);
    reply.logprobs.push_back(token.logprobs.at(0).logprob);
    return true;
  };
  request.on_finish = [&reply](Finish how) {
    ++reply.finished;
    reply.how = how;
  };
  return request;
}

}  // namespace hadal
