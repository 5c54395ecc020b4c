// The engine's promises: a reply does not depend on its neighbours, bad requests are refused by name, nothing is lost.
#include "infer/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "core/error.h"
#include "core/pool.h"
#include "infer/kv_cache.h"
#include "infer/model.h"
#include "tests/infer/models.h"
#include "tests/infer/replies.h"

namespace hadal {
namespace {

std::vector<Reply> run_together(const Model& model, const EngineOptions& options, int count) {
  std::vector<Reply> replies{static_cast<size_t>(count)};
  Engine engine(model, options);
  for (int i = 0; i < count; ++i) engine.submit(request_for(replies[size_t(i)], 1 + i * 37 % 90, 12 + i % 5, uint64_t(i)));
  while (engine.step()) {
  }
  return replies;
}

class EveryKind : public testing::TestWithParam<NamedConfig> {};

TEST_P(EveryKind, RepliesDoNotDependOnTheNeighbours) {
  for (const DType type : {DType::f32, DType::f16, DType::i8}) {
    const Model model = random_model(GetParam().config, type == DType::f32 ? DType::f32 : DType::bf16, 1);
    EngineOptions options{.cache = type, .cache_rows = 17 * 128, .max_rows = 64, .prompt_chunk = 32};
    std::vector<Reply> alone(17);
    for (int i = 0; i < 17; ++i) {
      Engine engine(model, options);
      engine.submit(request_for(alone[size_t(i)], 1 + i * 37 % 90, 12 + i % 5, uint64_t(i)));
      while (engine.step()) {
      }
    }
    for (const int count : {3, 17}) {
      const std::vector<Reply> together = run_together(model, options, count);
      for (int i = 0; i < count; ++i) {
        const Reply &a = alone[size_t(i)], &b = together[size_t(i)];
        EXPECT_EQ(a.tokens, b.tokens) << "sequence " << i << " of " << count;
        EXPECT_EQ(a.logprobs, b.logprobs) << "sequence " << i << " of " << count;
        EXPECT_EQ(int64_t(b.tokens.size()), 12 + i % 5);
        EXPECT_EQ(b.finished, 1);
        EXPECT_EQ(b.how, Finish::length);
      }
    }
  }
}

TEST_P(EveryKind, RepliesDoNotDependOnTheThreads) {
  const Model model = random_model(GetParam().config, DType::bf16, 2);
  for (const DType cache : {DType::f16, DType::i8}) {
    const EngineOptions options{.cache = cache, .cache_rows = 1024, .max_rows = 64, .prompt_chunk = 64};
    set_pool_threads(1);
    const std::vector<Reply> one = run_together(model, options, 5);
    set_pool_threads(3);
    const std::vector<Reply> three = run_together(model, options, 5);
    for (size_t i = 0; i < one.size(); ++i) EXPECT_EQ(one[i].logprobs, three[i].logprobs) << "sequence " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, EveryKind, testing::ValuesIn(small_configs()), [](const auto& info) { return info.param.name; });

// A cache that forgets gives what a cache that keeps everything gives: here the window is as long as the text, there the text is fed in
// other pieces, which the ring takes at other moments.
TEST_P(EveryKind, WindowsDoNotDependOnThePieces) {
  ModelConfig config = GetParam().config;
  if (config.indexer.heads > 0) GTEST_SKIP() << "an indexer chooses the keys";
  config.masks.resize(size_t(config.layers));
  config.masks[0] = {.window = 70, .sinks = 3};
  config.masks[1].window = 128;
  for (const DType type : {DType::f32, DType::i8}) {
    const Model model = random_model(config, DType::f32, 4);
    std::vector<Reply> replies(4);
    for (size_t i = 0; i < replies.size(); ++i) {
      const int64_t chunk = std::vector<int64_t>{256, 100, 64, 1}[i];
      Engine engine(model, {.cache = type, .cache_rows = 448, .max_rows = 256, .prompt_chunk = chunk});
      engine.submit(request_for(replies[i], 400, 40, 0));
      while (engine.step()) {
      }
      EXPECT_EQ(replies[i].tokens.size(), 40u);
      if (config.attention == AttentionKind::gqa) {
        EXPECT_EQ(replies[i].logprobs, replies[0].logprobs) << "chunks of " << chunk;
      }
    }
  }
}

TEST_P(EveryKind, BlocksDoNotDependOnThePieces) {
  ModelConfig config = GetParam().config;
  if (config.indexer.heads > 0) GTEST_SKIP() << "an indexer chooses the keys";
  const auto logprobs = [&](DType type, int64_t blocks, int64_t chunk) {
    config.attention_top_blocks = blocks;
    Reply reply;
    const Model model = random_model(config, DType::f32, 6);
    Engine engine(model, {.cache = type, .cache_rows = 448, .max_rows = 256, .prompt_chunk = chunk});
    engine.submit(request_for(reply, 400, 30, 0));
    while (engine.step()) {
    }
    return reply.logprobs;
  };
  for (const DType type : {DType::f16, DType::i8}) {
    const std::vector<float> full = logprobs(type, 0, 256), some = logprobs(type, 3, 256);
    EXPECT_NE(full, some);
    EXPECT_EQ(some, logprobs(type, 3, 50));
    EXPECT_EQ(some, logprobs(type, 3, 1));
    if (config.attention == AttentionKind::gqa) {
      EXPECT_EQ(full, logprobs(type, 7, 100)) << "seven blocks are all";
    }
  }
}

TEST_P(EveryKind, ALongWindowIsNone) {
  ModelConfig config = GetParam().config;
  if (config.indexer.heads > 0) GTEST_SKIP() << "an indexer chooses the keys";
  const EngineOptions options{.cache = DType::i8, .cache_rows = 448, .max_rows = 256, .prompt_chunk = 100};
  const std::vector<Reply> full = run_together(random_model(config, DType::f32, 5), options, 3);
  config.attention_window = 120;
  const std::vector<Reply> windowed = run_together(random_model(config, DType::f32, 5), options, 3);
  config.attention_window = 20;
  const std::vector<Reply> short_sighted = run_together(random_model(config, DType::f32, 5), options, 3);
  for (size_t i = 0; i < full.size(); ++i) EXPECT_EQ(full[i].logprobs, windowed[i].logprobs);
  EXPECT_NE(full[1].logprobs, short_sighted[1].logprobs);
}

class Gqa : public testing::Test {
 protected:
  const Model model = random_model(small_configs()[0].config, DType::f32, 3);
  Reply reply;

  std::string refusal(Engine& engine, Request request) {
    try {
      engine.submit(std::move(request));
    } catch (const Error& e) {
      return e.what();
    }
    return "accepted";
  }
};

TEST_F(Gqa, WaitsForMemoryAndStillServesEveryone) {
  const std::vector<Reply> few = run_together(model, {.cache_rows = 128, .max_rows = 32, .prompt_chunk = 16}, 17);
  const std::vector<Reply> many = run_together(model, {.cache_rows = 4096, .max_rows = 32, .prompt_chunk = 16}, 17);
  for (size_t i = 0; i < few.size(); ++i) EXPECT_EQ(few[i].tokens, many[i].tokens) << "sequence " << i;
}

TEST_F(Gqa, RefusesBadRequestsByName) {
  Engine engine(model, {.cache_rows = 128, .max_rows = 32, .prompt_chunk = 16});
  Request empty;
  EXPECT_THAT(refusal(engine, empty), testing::HasSubstr("prompt is empty"));
  Request outside;
  outside.prompt = {0, 97};
  EXPECT_THAT(refusal(engine, outside), testing::HasSubstr("token 97 is out of range: expected [0, 97)"));
  outside.prompt = {-1};
  EXPECT_THAT(refusal(engine, outside), testing::HasSubstr("token -1 is out of range"));
  Request tall = request_for(reply, 128, 5, 0);
  EXPECT_THAT(refusal(engine, tall),
              testing::AllOf(testing::HasSubstr("prompt is too long: 128 tokens"), testing::HasSubstr("cache holds 128")));
  Request none = request_for(reply, 3, 0, 0);
  EXPECT_THAT(refusal(engine, none), testing::HasSubstr("max_tokens: expected 1 or more, found 0"));
  Request hot = request_for(reply, 3, 1, 0);
  hot.sampling.top_p = 2;
  EXPECT_THAT(refusal(engine, hot), testing::HasSubstr("top_p"));
  EXPECT_FALSE(engine.step()) << "nothing was accepted";
  EXPECT_THROW(Engine(model, {.max_rows = 8, .prompt_chunk = 16}), Error);

  Engine roomy(model, {.cache_rows = 4096, .max_rows = 32, .prompt_chunk = 16});
  EXPECT_THAT(refusal(roomy, request_for(reply, 512, 5, 0)), testing::HasSubstr("the model's context holds 512"));
}

TEST_F(Gqa, EndsAtStopTokensCallbacksAndTheContext) {
  Engine engine(model, {.cache_rows = 128, .max_rows = 32, .prompt_chunk = 16});
  engine.submit(request_for(reply, 100, 1000, 0));
  while (engine.step()) {
  }
  EXPECT_EQ(reply.tokens.size(), 28u) << "the cache is full";
  EXPECT_EQ(reply.how, Finish::length);

  Reply stopped;
  Request request = request_for(stopped, 100, 28, 0);
  request.stop_tokens = {reply.tokens[5]};
  engine.submit(request);
  while (engine.step()) {
  }
  const size_t first = size_t(std::ranges::find(reply.tokens, reply.tokens[5]) - reply.tokens.begin());
  EXPECT_EQ(stopped.tokens, std::vector(reply.tokens.begin(), reply.tokens.begin() + ptrdiff_t(first)))
      << "the stop token is not delivered";
  EXPECT_EQ(stopped.how, Finish::stop);

  Reply enough;
  Request two = request_for(enough, 10, 28, 0);
  two.on_token = [&](const Token& token) {
    enough.tokens.push_back(token.id);
    return enough.tokens.size() < 2;
  };
  engine.submit(two);
  while (engine.step()) {
  }
  EXPECT_EQ(enough.tokens.size(), 2u);
  EXPECT_EQ(enough.how, Finish::stop);
}

TEST_F(Gqa, CancelsWaitingAndRunning) {
  Engine engine(model, {.cache_rows = 128, .max_rows = 32, .prompt_chunk = 16});
  Reply running, waiting, after;
  const uint64_t a = engine.submit(request_for(running, 20, 100, 0));
  const uint64_t b = engine.submit(request_for(waiting, 20, 100, 1));
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(engine.step());
  engine.cancel(b);
  std::thread([&] { engine.cancel(a); }).join();
  engine.cancel(12345);
  engine.submit(request_for(after, 64, 64, 2));  // needs the whole cache
  while (engine.step()) {
  }
  EXPECT_FALSE(running.tokens.empty());
  EXPECT_EQ(running.how, Finish::cancelled);
  EXPECT_TRUE(waiting.tokens.empty());
  EXPECT_EQ(waiting.finished, 1);
  EXPECT_EQ(after.tokens.size(), 64u);
}

TEST_F(Gqa, EndlessTextStaysInItsWindow) {
  ModelConfig config = small_configs()[0].config;
  config.layers = config.heads = config.kv_heads = 1;
  config.attention_window = 4096;
  config.attention_sinks = 4;
  const Model forgetful = random_model(config, DType::f32, 3);
  Engine engine(forgetful, {.cache = DType::i8, .cache_rows = 8192, .max_rows = 512, .prompt_chunk = 512, .drafting = Drafting::off});
  EXPECT_GT(engine.cache_rows(), int64_t(1) << 40);
  engine.submit(request_for(reply, 98'000, 2'000, 0));
  while (engine.step()) {
  }
  EXPECT_EQ(reply.tokens.size(), 2'000u) << "100,000 tokens in all, the context is 512";
  EXPECT_THAT(reply.logprobs, testing::Each(testing::Truly([](float l) { return std::isfinite(l); })));
  EXPECT_EQ(KvCache::bytes(config, DType::i8, 8192), KvCache::bytes(config, DType::i8, int64_t(1) << 40))
      << "memory does not depend on the length";
  EXPECT_EQ(KvCache::bytes(config, DType::i8, 8192), (1 + 65) * KvCache::page_bytes(config, DType::i8)) << "a page of sinks, and a ring";
}

TEST_P(EveryKind, GoesOnWhereTheContextIsFull) {
  const Model model = random_model(GetParam().config, DType::bf16, 1);  // its context is 512
  for (const DType type : {DType::f16, DType::i8}) {
    const EngineOptions options{.cache = type, .cache_rows = 3 * 512, .max_rows = 128, .prompt_chunk = 64};
    std::vector<Reply> alone(3), together(3);
    const auto request = [](Reply& reply, int i) {  // a prompt and a reply within the context, and both beyond it
      Request r = request_for(reply, i == 2 ? 900 : 300, i == 0 ? 200 : 700, uint64_t(i));
      r.keep = 70;
      return r;
    };
    for (int i = 0; i < 3; ++i) {
      Engine engine(model, options);
      engine.submit(request(alone[size_t(i)], i));
      while (engine.step()) {
      }
      EXPECT_EQ(alone[size_t(i)].tokens.size(), i == 0 ? 200u : 700u);
      EXPECT_EQ(alone[size_t(i)].how, Finish::length);
    }
    Engine engine(model, options);
    for (int i = 0; i < 3; ++i) engine.submit(request(together[size_t(i)], i));
    while (engine.step()) {
    }
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(alone[i].logprobs, together[i].logprobs) << "request " << i;
  }
}

TEST_F(Gqa, AContextTooSmallToForgetEnds) {
  Engine engine(model, {.cache_rows = 128, .max_rows = 32, .prompt_chunk = 16});
  Request request = request_for(reply, 100, 1000, 0);
  request.keep = 65;
  EXPECT_FALSE(engine.can_shift(65));
  engine.submit(request);
  while (engine.step()) {
  }
  EXPECT_EQ(reply.tokens.size(), 28u);
  request.keep = 101;
  EXPECT_THROW(engine.submit(request), Error) << "more than the prompt";
}

TEST_F(Gqa, ReportsLogprobsOfTheUnchangedLogits) {
  Engine engine(model, {.cache_rows = 128, .max_rows = 32, .prompt_chunk = 16});
  Request request = request_for(reply, 9, 3, 0);
  request.logprobs = 4;
  request.sampling.logit_bias = {{5, 1000.f}};  // forces token 5
  std::vector<Token> tokens;
  request.on_token = [&](const Token& token) { return tokens.push_back(token), true; };
  engine.submit(request);
  while (engine.step()) {
  }
  ASSERT_EQ(tokens.size(), 3u);
  for (const Token& token : tokens) {
    EXPECT_EQ(token.id, 5);
    ASSERT_EQ(token.logprobs.size(), 5u);
    EXPECT_EQ(token.logprobs[0].token, 5);
    EXPECT_LT(token.logprobs[0].logprob, -0.1f) << "the bias must not show";
    for (size_t i = 2; i < 5; ++i) EXPECT_GE(token.logprobs[i - 1].logprob, token.logprobs[i].logprob);
  }
}

}  // namespace
}  // namespace hadal
