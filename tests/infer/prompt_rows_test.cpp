// What a request may learn about its own prompt: final states, log-probabilities, how far it has been read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "infer/engine.h"
#include "infer/model.h"
#include "tests/infer/models.h"

namespace hadal {
namespace {

const EngineOptions options{.cache = DType::f32, .cache_rows = 1024, .max_rows = 64, .prompt_chunk = 32};

std::vector<int32_t> prompt_of(int64_t length) {
  std::vector<int32_t> prompt;
  for (int64_t i = 0; i < length; ++i) prompt.push_back(int32_t((i * 31 + i * i * 7) % 97));
  return prompt;
}

struct Learned {
  std::vector<std::vector<float>> hidden;
  std::vector<Token> tokens;
  std::vector<int64_t> read;
};

Request curious(Learned& learned, int64_t length) {
  Request request;
  request.prompt = prompt_of(length);
  request.max_tokens = 3;
  request.logprobs = 2;
  request.on_hidden = [&learned](Mat<const float> rows) {
    for (int64_t r = 0; r < rows.rows; ++r) learned.hidden.emplace_back(rows.row(r), rows.row(r) + rows.cols);
  };
  request.on_prompt_token = [&learned](const Token& token) { learned.tokens.push_back(token); };
  request.on_read = [&learned](int64_t read, int64_t) { learned.read.push_back(read); };
  return request;
}

void run(Engine& engine) {
  while (engine.step()) {
  }
}

class PromptRows : public testing::TestWithParam<NamedConfig> {};

TEST_P(PromptRows, AreThoseOfTheRepliesThatCouldHaveBeen) {
  const Model model = random_model(GetParam().config, DType::f32, 5);
  Engine engine(model, options);
  for (const int64_t length : {1, 2, 32, 33, 70}) {
    Learned learned, neighbour;
    engine.submit(curious(neighbour, 45));
    engine.submit(curious(learned, length));
    run(engine);
    const std::vector<int32_t> prompt = prompt_of(length);
    ASSERT_EQ(int64_t(learned.tokens.size()), length);
    ASSERT_EQ(int64_t(learned.hidden.size()), length);
    EXPECT_TRUE(learned.tokens[0].logprobs.empty()) << "the first token follows nothing";
    EXPECT_EQ(neighbour.tokens.size(), 45u);
    for (int64_t i = 1; i < length; i += 1 + length / 9) {
      EXPECT_EQ(learned.tokens[size_t(i)].id, prompt[size_t(i)]);
      ASSERT_EQ(learned.tokens[size_t(i)].logprobs.size(), 3u);
      std::vector<Logprob> drawn;
      Request same;
      same.prompt.assign(prompt.begin(), prompt.begin() + i);
      same.max_tokens = 1;
      same.logprobs = 2;
      same.sampling.logit_bias = {{prompt[size_t(i)], 1e4f}};
      same.on_token = [&](const Token& token) {
        drawn = token.logprobs;
        return true;
      };
      engine.submit(same);
      run(engine);
      ASSERT_EQ(drawn.size(), 3u);
      for (size_t k = 0; k < 3; ++k) EXPECT_NEAR(learned.tokens[size_t(i)].logprobs[k].logprob, drawn[k].logprob, 1e-4) << i << " " << k;
    }
  }
}

TEST_P(PromptRows, HiddenStatesGiveTheLogits) {
  const ModelConfig& config = GetParam().config;
  const Model model = random_model(config, DType::f32, 6);
  Learned learned;
  Engine engine(model, options);
  engine.submit(curious(learned, 40));
  run(engine);
  const Weight& head = config.tied_head ? model.params.embed : model.params.head;
  for (size_t i = 0; i + 1 < 40; ++i) {
    double sum = 0, wanted = 0;
    for (int64_t token = 0; token < config.vocab; ++token) {
      double logit = 0;
      for (int64_t d = 0; d < config.dim; ++d) logit += double(learned.hidden[i][size_t(d)]) * head.as_f32()[token * head.cols + d];
      sum += std::exp(logit);
      if (token == learned.tokens[i + 1].id) wanted = logit;
    }
    EXPECT_NEAR(learned.tokens[i + 1].logprobs[0].logprob, wanted - std::log(sum), 1e-3) << i;
  }
}

TEST_P(PromptRows, ReadingIsTold) {
  const Model model = random_model(GetParam().config, DType::f32, 7);
  Learned learned;
  Engine engine(model, options);
  engine.submit(curious(learned, 70));
  run(engine);
  EXPECT_THAT(learned.read, testing::ElementsAre(32, 64, 70));
}

INSTANTIATE_TEST_SUITE_P(Kinds, PromptRows, testing::ValuesIn(small_configs()), [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace hadal
