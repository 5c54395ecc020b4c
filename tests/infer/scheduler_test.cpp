// Who reads what, and whose pages: what prompts share, what gives way, and who comes first never show in a reply.
#include "infer/scheduler.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "infer/adapter.h"
#include "tests/infer/models.h"
#include "tests/infer/replies.h"

namespace hadal {
namespace {

class EveryKindScheduled : public testing::TestWithParam<NamedConfig> {};
INSTANTIATE_TEST_SUITE_P(Scheduled, EveryKindScheduled, testing::ValuesIn(small_configs()),
                         [](const auto& info) { return info.param.name; });

class Scheduled : public testing::Test {
 protected:
  const Model model = random_model(small_configs()[0].config, DType::f32, 3);
};

Request request_behind(const std::vector<int32_t>& beginning, Reply& reply, int64_t more, int64_t max_tokens, uint64_t seed) {
  Request request = request_for(reply, more, max_tokens, seed);
  request.prompt.insert(request.prompt.begin(), beginning.begin(), beginning.end());
  return request;
}

std::vector<int32_t> beginning_of(int64_t tokens, int32_t seed) {
  std::vector<int32_t> out;
  for (int64_t i = 0; i < tokens; ++i) out.push_back(int32_t((i * i + 7 * i + seed) % 97));
  return out;
}

void run(Engine& engine) {
  while (engine.step()) {
  }
}

Reply reply_alone(const Model& model, EngineOptions options, const std::function<Request(Reply&)>& make) {
  options.share_prefixes = false;
  Engine engine(model, options);
  Reply reply;
  engine.submit(make(reply));
  run(engine);
  return reply;
}

void expect_same(const Reply& a, const Reply& b, const std::string& what) {
  EXPECT_EQ(a.tokens, b.tokens) << what;
  EXPECT_EQ(a.logprobs, b.logprobs) << what;
  EXPECT_EQ(b.finished, 1) << what;
}

// Two beginnings, seven prompts that go on differently, one after the other and all at once: the same bits, and each beginning is read
// once.
TEST_P(EveryKindScheduled, BeginningsAreReadOnce) {
  for (const DType type : {DType::f32, DType::i8}) {
    const Model model = random_model(GetParam().config, type == DType::f32 ? DType::f32 : DType::bf16, 1);
    const EngineOptions options{.cache = type, .cache_rows = 4096, .max_rows = 128, .prompt_chunk = 64};
    const auto make = [&](int i, Reply& reply) {
      return request_behind(beginning_of(i % 2 == 0 ? 150 : 200, i % 2), reply, 5 + i * 23 % 70, 6, uint64_t(i));
    };
    std::vector<Reply> alone(7), later(7), together(7);
    for (int i = 0; i < 7; ++i) alone[size_t(i)] = reply_alone(model, options, [&](Reply& reply) { return make(i, reply); });
    Engine engine(model, options);
    for (int i = 0; i < 7; ++i) {
      const int64_t before = engine.figures().cached_tokens;
      engine.submit(make(i, later[size_t(i)]));
      run(engine);
      EXPECT_EQ(engine.figures().cached_tokens - before, i < 2 ? 0 : i % 2 == 0 ? 128 : 192);
      expect_same(alone[size_t(i)], later[size_t(i)], fmt::format("{} later", i));
    }
    Engine crowd(model, options);
    for (int i = 0; i < 7; ++i) crowd.submit(make(i, together[size_t(i)]));
    run(crowd);
    for (int i = 0; i < 7; ++i) expect_same(alone[size_t(i)], together[size_t(i)], fmt::format("{} together", i));
    EXPECT_EQ(crowd.figures().cached_tokens, 3 * 128 + 2 * 192);
    EXPECT_EQ(crowd.figures().prompt_tokens, engine.figures().prompt_tokens);
    EXPECT_EQ(crowd.figures().free_pages + crowd.figures().kept_pages, crowd.figures().pages);
  }
}

// A talk goes on: where a reply's bits are those of a prompt, the next turn knows it too.
TEST_P(EveryKindScheduled, ATalkIsNotReadAgain) {
  for (const DType type : {DType::f16, DType::i8}) {
    const Model model = random_model(GetParam().config, DType::bf16, 1);
    for (const int64_t keep : {-1, 10}) {  // with 10: it might forget
      const EngineOptions options{.cache = type, .cache_rows = 512, .max_rows = 64, .prompt_chunk = 64};
      Engine engine(model, options);
      std::vector<int32_t> talk = beginning_of(150, 1);
      for (int turn = 0; turn < 3; ++turn) {
        const auto make = [&](Reply& reply) {
          Request request = request_behind(talk, reply, 7, keep < 0 ? 60 : 1000, uint64_t(turn + 1));
          request.keep = keep;
          request.on_token = [&reply](const Token& token) {
            reply.tokens.push_back(token.id);
            reply.logprobs.push_back(token.logprobs.at(0).logprob);
            return reply.tokens.size() < 60;
          };
          return request;
        };
        const Reply alone = reply_alone(model, options, make);
        const int64_t before = engine.figures().cached_tokens;
        Reply reply;
        Request request = make(reply);
        talk = request.prompt;
        engine.submit(std::move(request));
        run(engine);
        expect_same(alone, reply, fmt::format("turn {}", turn));
        const int64_t known = engine.figures().cached_tokens - before;
        if (turn > 0 && GetParam().config.attention == AttentionKind::gqa) {
          EXPECT_EQ(known, (157 + (turn - 1) * 67 + 59) / 64 * 64);
        } else {
          EXPECT_EQ(known, turn == 0 ? 0 : turn == 1 ? 128 : 192);
        }
        talk.insert(talk.end(), reply.tokens.begin(), reply.tokens.end());
      }
    }
  }
}

// One who forgets had lent its pages to others: those read again what they need, and every reply is what it would have been.
TEST_P(EveryKindScheduled, WhoForgetsTakesItsPagesBack) {
  const Model model = random_model(GetParam().config, DType::bf16, 1);
  const EngineOptions options{.cache_rows = 1024, .max_rows = 64, .prompt_chunk = 64};
  const auto forgetful = [](Reply& reply) {
    Request request = request_behind(beginning_of(130, 1), reply, 5, 700, 1);
    request.keep = 10;
    return request;
  };
  const auto other = [](Reply& reply) { return request_behind(beginning_of(130, 1), reply, 9, 100, 2); };
  const Reply one = reply_alone(model, options, forgetful), two = reply_alone(model, options, other);
  Engine engine(model, options);
  std::vector<Reply> replies(3);
  engine.submit(forgetful(replies[0]));
  for (int i = 0; i < 300; ++i) engine.step();
  engine.submit(other(replies[1]));
  run(engine);
  engine.submit(other(replies[2]));
  run(engine);
  EXPECT_EQ(engine.figures().preempted, 1);
  expect_same(one, replies[0], "who forgets");
  expect_same(two, replies[1], "the other");
  expect_same(two, replies[2], "the other later");
  EXPECT_EQ(engine.figures().free_pages + engine.figures().kept_pages, engine.figures().pages);
}

// More replies than there is room for: some give way and read again what they had written, to the same bits.
TEST_P(EveryKindScheduled, WhoGivesWayGoesOnAsBefore) {
  for (const DType type : {DType::f32, DType::f16, DType::i8}) {
    const Model model = random_model(GetParam().config, type == DType::f32 ? DType::f32 : DType::bf16, 1);
    const EngineOptions options{.cache = type, .cache_rows = 8 * 64, .max_rows = 64, .prompt_chunk = 32};
    const auto make = [](int i, Reply& reply) { return request_for(reply, 10 + i * 37 % 90, 200, uint64_t(i)); };
    std::vector<Reply> alone(5), together(5);
    for (int i = 0; i < 5; ++i) alone[size_t(i)] = reply_alone(model, options, [&](Reply& reply) { return make(i, reply); });
    Engine engine(model, options);
    for (int i = 0; i < 5; ++i) engine.submit(make(i, together[size_t(i)]));
    run(engine);
    for (int i = 0; i < 5; ++i) expect_same(alone[size_t(i)], together[size_t(i)], fmt::format("{} of 5", i));
    EXPECT_GT(engine.figures().preempted, 0);
    EXPECT_EQ(engine.figures().free_pages + engine.figures().kept_pages, engine.figures().pages);
  }
}

TEST_F(Scheduled, WhatIsKeptGoesWhenItIsInTheWay) {
  const EngineOptions options{.cache_rows = 8 * 64, .max_rows = 128, .prompt_chunk = 64};
  Engine engine(model, options);
  for (int i = 0; i < 20; ++i) {
    Reply reply;
    engine.submit(request_behind(beginning_of(300, i), reply, 3, 40, uint64_t(i)));
    run(engine);
    EXPECT_EQ(reply.tokens.size(), 40u);
  }
  EXPECT_EQ(engine.figures().preempted, 0);
  EXPECT_GE(engine.figures().kept_pages, 4);
}

TEST_F(Scheduled, AdaptersShareWithNobody) {
  const auto adapter = std::make_shared<Adapter>();
  adapter->generation = 1, adapter->base = model.params.embed.data;
  Engine engine(model, {.cache_rows = 2048, .max_rows = 128, .prompt_chunk = 64});
  for (int i = 0; i < 4; ++i) {
    Reply reply;
    Request request = request_behind(beginning_of(130, 0), reply, 3, 2, 1);
    if (i % 2 == 1) request.adapter = adapter;
    engine.submit(std::move(request));
    run(engine);
    EXPECT_EQ(engine.figures().cached_tokens, i < 2 ? 0 : (i - 1) * 128);
  }
}

TEST_F(Scheduled, TheGreaterPriorityComesFirstAndTakesRoom) {
  Engine engine(model, {.cache_rows = 4 * 64, .max_rows = 128, .prompt_chunk = 64});
  std::vector<int> order;
  std::vector<Reply> replies(3);
  const auto submit = [&](int i, int priority) {
    Request request = request_for(replies[size_t(i)], 120, 60, uint64_t(i));
    request.priority = priority;
    request.on_finish = [&order, i](Finish) { order.push_back(i); };
    engine.submit(std::move(request));
  };
  submit(0, 0);
  for (int i = 0; i < 10; ++i) engine.step();
  submit(1, 0);
  submit(2, 1);
  run(engine);
  EXPECT_EQ(order, (std::vector{2, 0, 1}));
  EXPECT_EQ(engine.figures().preempted, 1);
}

// One client asks for much, another for little: the second does not wait for all that the first has asked for.
TEST_F(Scheduled, ClientsTakeTurns) {
  Engine engine(model, {.cache_rows = 3 * 64, .max_rows = 64, .prompt_chunk = 64});
  std::vector<uint64_t> order;
  std::vector<Reply> replies(7);
  for (int i = 0; i < 7; ++i) {
    Request request = request_for(replies[size_t(i)], 100, 20, uint64_t(i));
    request.client = i < 5 ? 1 : 2;
    request.on_finish = [&order, client = request.client](Finish) { order.push_back(client); };
    engine.submit(std::move(request));
  }
  run(engine);
  EXPECT_EQ(order, (std::vector<uint64_t>{1, 2, 1, 2, 1, 1, 1}));
}

TEST_F(Scheduled, SaysHowMuchOfThePromptIsRead) {
  Engine engine(model, {.cache_rows = 2048, .max_rows = 128, .prompt_chunk = 64});
  for (const int64_t cached : {0, 192}) {
    Reply reply;
    std::vector<std::pair<int64_t, int64_t>> told;
    Request request = request_behind(beginning_of(190, 0), reply, 3, 2, 1);
    request.on_read = [&](int64_t read, int64_t found) { told.emplace_back(read, found); };
    engine.submit(std::move(request));
    run(engine);
    EXPECT_EQ(told.front(), std::pair(cached == 0 ? int64_t(64) : int64_t(193), cached));
    EXPECT_EQ(told.back(), std::pair(int64_t(193), cached));
  }
}

// What was read outlives the engine; a file that is not what was written is as good as none.
TEST_P(EveryKindScheduled, BeginningsOutliveTheEngine) {
  const std::filesystem::path folder = testing::TempDir() + "/prefixes_" + GetParam().name;
  std::filesystem::remove_all(folder);
  const Model model = random_model(GetParam().config, DType::bf16, 1);
  const EngineOptions options{
      .cache_rows = 1024, .max_rows = 128, .prompt_chunk = 64, .disk = {.path = folder, .identity = "one", .bytes = 1 << 24}};
  const auto cached_with = [&](const EngineOptions& o) {
    const auto make = [](Reply& reply) { return request_behind(beginning_of(200, 0), reply, 3, 8, 1); };
    const Reply alone = reply_alone(model, o, make);
    Engine engine(model, o);
    Reply reply;
    engine.submit(make(reply));
    run(engine);
    expect_same(alone, reply, "from the disk");
    return engine.figures().cached_tokens;
  };
  EXPECT_EQ(cached_with(options), 0);
  EXPECT_EQ(cached_with(options), 192);
  EngineOptions other = options;
  other.disk.identity = "another";
  EXPECT_EQ(cached_with(other), 0);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    ++files;
    if (files % 2 == 0)
      std::filesystem::resize_file(entry.path(), entry.file_size() - 1);
    else
      std::fstream(entry.path(), std::ios::in | std::ios::out | std::ios::binary).seekp(1000).put('?').put('!').put('?').put('!');
  }
  EXPECT_EQ(files, 6);
  EXPECT_EQ(cached_with(options), 0);
  EXPECT_EQ(cached_with(options), 192);
  EngineOptions little = options;
  little.disk.bytes = 1000;
  EXPECT_EQ(cached_with(little), 0);
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

}  // namespace
}  // namespace hadal
