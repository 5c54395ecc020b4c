// Guesses: what look-up finds, when guessing pays, and that no reply is changed by it.
#include "infer/draft.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "core/random.h"
#include "infer/engine.h"
#include "infer/model.h"
#include "tests/infer/models.h"

namespace hadal {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

Lookup read(const std::vector<int32_t>& text) {
  Lookup lookup;
  for (const int32_t token : text) lookup.add(token);
  return lookup;
}

TEST(LookupTest, WhatFollowedTheSameWords) {
  EXPECT_THAT(read({}).guess(8).tokens, IsEmpty());
  EXPECT_THAT(read({1, 2}).guess(8).tokens, IsEmpty());
  EXPECT_THAT(read({1, 2, 3}).guess(8).tokens, IsEmpty());
  EXPECT_THAT(read({1, 2, 3, 4, 5, 9, 1, 2, 3}).guess(2).tokens, ElementsAre(4, 5));
  EXPECT_THAT(read({1, 2, 3, 4, 5, 9, 1, 2}).guess(2).tokens, IsEmpty()) << "two words are too few";
  EXPECT_THAT(read({1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3}).guess(1).tokens, ElementsAre(5)) << "the latest place";
  EXPECT_THAT(read({1, 2, 3, 4, 5, 9, 1, 2, 3}).guess(0).tokens, IsEmpty());
}

TEST(LookupTest, ACircleGoesOn) {
  EXPECT_THAT(read({7, 7, 7, 7}).guess(5).tokens, ElementsAre(7, 7, 7, 7, 7));
  EXPECT_THAT(read({1, 2, 1, 2, 1, 2}).guess(5).tokens, ElementsAre(1, 2, 1, 2, 1));
  EXPECT_EQ(int64_t(read({7, 7, 7, 7}).guess(1000).tokens.size()), Lookup::longest);
}

TEST(LookupTest, LongerAgreementIsAnotherKind) {
  std::vector<int> kinds;
  for (const int64_t agreed : {3, 4, 6, 10, 18, 31}) {
    std::vector<int32_t> text(static_cast<size_t>(agreed));
    std::iota(text.begin(), text.end(), 1);
    std::vector<int32_t> both = text;
    both.insert(both.end(), {100, 101});
    both.insert(both.end(), text.begin(), text.end());
    const Guess guess = read(both).guess(1);
    ASSERT_THAT(guess.tokens, ElementsAre(100));
    kinds.push_back(guess.kind);
  }
  EXPECT_THAT(kinds, ElementsAre(0, 1, 2, 3, 4, 4));
}

Guess guess_of(int64_t count, int kind) { return {std::vector<int32_t>(size_t(count), 1), kind}; }

TEST(DraftGainTest, PaysWhileGuessesHoldAndRowsAreCheap) {
  DraftGain gain;
  const Guess guess = guess_of(16, 4);
  const std::vector<const Guess*> guesses{&guess};
  EXPECT_EQ(gain.best_length(guesses, 1), 0) << "nothing is known about passes yet";
  gain.passed(1, 1.0);
  EXPECT_GT(gain.best_length(guesses, 1), 0) << "what was never tried is tried";
  for (int i = 0; i < 100; ++i) gain.compared(4, 16, 16);
  for (int64_t rows = 2; rows <= DraftGain::most_rows; ++rows) gain.passed(rows, 1.0 + 0.05 * double(rows - 1));
  EXPECT_EQ(gain.best_length(guesses, 1), 16) << "always right, nearly free";
  for (int i = 0; i < 200; ++i) gain.compared(4, 1, 0);
  EXPECT_LT(gain.chance(4), 0.1);
  EXPECT_EQ(gain.best_length(guesses, 1), 0) << "always wrong";
}

TEST(DraftGainTest, DearRowsAreNotWorthIt) {
  DraftGain gain;
  const Guess guess = guess_of(16, 2);
  const std::vector<const Guess*> guesses{&guess};
  for (int i = 0; i < 100; ++i) gain.compared(2, 4, 3);
  for (int64_t rows = 1; rows <= DraftGain::most_rows; ++rows) gain.passed(rows, double(rows));
  EXPECT_EQ(gain.best_length(guesses, 1), 0) << "each row costs a whole pass";
  for (int i = 0; i < 50; ++i)
    for (int64_t rows = 1; rows <= 32; ++rows) gain.passed(rows, rows <= 4 ? 1.0 : 9.0);
  EXPECT_EQ(gain.best_length(guesses, 1), 3) << "up to the rows that are cheap";
  EXPECT_EQ(gain.best_length(guesses, 4), 0) << "four replies already fill them";
}

TEST(DraftGainTest, TheLayerMustEarnItsOwnTime) {
  DraftGain gain;
  EXPECT_TRUE(gain.layer_pays(1)) << "not known yet";
  gain.passed(1, 1.0);
  gain.passed(2, 1.1);
  gain.layer_passed(0.1);
  for (int i = 0; i < 50; ++i) gain.compared(DraftGain::layer_kind, 1, 1);
  EXPECT_TRUE(gain.layer_pays(1)) << "two tokens for 1.2";
  for (int i = 0; i < 100; ++i) gain.compared(DraftGain::layer_kind, 1, 0);
  EXPECT_FALSE(gain.layer_pays(1));
}

TEST(DraftGainTest, AnOldCostIsForgotten) {
  DraftGain gain;
  const Guess guess = guess_of(1, 4);
  const std::vector<const Guess*> guesses{&guess};
  gain.passed(1, 1.0);
  gain.passed(2, 5.0);
  EXPECT_EQ(gain.best_length(guesses, 1), 0);
  for (int i = 0; i < 300; ++i) gain.passed(1, 1.0);
  EXPECT_EQ(gain.best_length(guesses, 1), 1) << "worth another try";
}

// Replies with and without guesses.

struct Said {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  Finish how = Finish::cancelled;
};

// Prompts that repeat themselves and sampling that likes few tokens: guesses are made, and hold now and then.
Request repeating(Said& said, int i, int64_t max_tokens) {
  Request request;
  for (int64_t k = 0; k < 20 + 7 * i; ++k) request.prompt.push_back(int32_t(k % (4 + i)));
  request.sampling.temperature = i % 2 == 0 ? 0.f : 0.8f;
  request.sampling.top_k = i % 2 == 0 ? 0 : 2;
  request.sampling.seed = uint64_t(i);
  if (i % 3 == 2) request.sampling.repeat_penalty = 1.1f;
  request.sampling.logit_bias = {{1, 3.f}, {2, 3.f}};
  request.max_tokens = max_tokens;
  request.logprobs = 0;
  request.on_token = [&said](const Token& token) {
    said.tokens.push_back(token.id);
    said.logprobs.push_back(token.logprobs.at(0).logprob);
    return true;
  };
  request.on_finish = [&said](Finish how) { said.how = how; };
  return request;
}

struct Talk {
  std::vector<Said> said;
  DraftFigures drafts;
};

Talk talk(const Model& model, const EngineOptions& options, int sequences, const std::function<void(Request&, int)>& change = {}) {
  Talk result;
  result.said.resize(size_t(sequences));
  Engine engine(model, options);
  for (int i = 0; i < sequences; ++i) {
    Request request = repeating(result.said[size_t(i)], i, 60);
    if (change) change(request, i);
    engine.submit(std::move(request));
  }
  while (engine.step()) {
  }
  result.drafts = engine.drafts();
  EXPECT_LE(result.drafts.accepted, result.drafts.drafted);
  return result;
}

void expect_same(const Talk& a, const Talk& b) {
  for (size_t i = 0; i < a.said.size(); ++i) {
    EXPECT_EQ(a.said[i].tokens, b.said[i].tokens) << "sequence " << i;
    EXPECT_EQ(a.said[i].logprobs, b.said[i].logprobs) << "sequence " << i;
    EXPECT_EQ(a.said[i].how, b.said[i].how) << "sequence " << i;
  }
}

class Drafts : public testing::TestWithParam<NamedConfig> {
 protected:
  EngineOptions options(Drafting drafting, DType cache = DType::f16) const {
    return {.cache = cache, .cache_rows = 4096, .max_rows = 64, .prompt_chunk = 32, .drafting = drafting, .draft_gain = 0};
  }
};

TEST_P(Drafts, RepliesAreTheSame) {
  for (const DType type : {DType::f32, DType::bf16, DType::w8, DType::w4}) {
    Recipe recipe;
    recipe.weights = type;
    const Model model = random_model(GetParam().config, recipe, 1);
    for (const DType cache : {DType::f32, DType::f16, DType::i8})
      for (const int sequences : {1, 5}) {
        const Talk without = talk(model, options(Drafting::off, cache), sequences),
                   with = talk(model, options(Drafting::lookup, cache), sequences);
        expect_same(without, with);
        EXPECT_EQ(without.drafts.drafted, 0);
        EXPECT_GT(with.drafts.accepted, 0) << "guesses were made and held: otherwise this test shows nothing";
      }
  }
}

TEST_P(Drafts, AWrongGuessLosesNothingOfAWindow) {
  ModelConfig config = GetParam().config;
  if (config.indexer.heads > 0) return;                      // chooses its keys itself
  config.attention_window = 60, config.attention_sinks = 3;  // a ring of two pages, round several times
  const Model model = random_model(config, DType::f32, 1);
  const auto longer = [](Request& request, int) { request.max_tokens = 300; };
  const Talk with = talk(model, options(Drafting::lookup), 2, longer);
  expect_same(talk(model, options(Drafting::off), 2, longer), with);
  EXPECT_LT(with.drafts.accepted, with.drafts.drafted);
}

// The layer's weights are random, and so are its guesses; that the first of a repeated prompt's are right by chance is enough to see both
// ways.
TEST_P(Drafts, RepliesAreTheSameWithADraftLayer) {
  ModelConfig config = GetParam().config;
  config.draft_layers = 1, config.load_draft = true;
  for (const DType cache : {DType::f32, DType::i8}) {
    const Model model = random_model(config, DType::f32, 1);
    const Talk without = talk(model, options(Drafting::off, cache), 5);
    for (const Drafting drafting : {Drafting::mtp, Drafting::automatic}) {
      const Talk with = talk(model, options(drafting, cache), 5);
      expect_same(without, with);
      EXPECT_GT(with.drafts.drafted, 0);
    }
  }
}

TEST_P(Drafts, AReplyEndsInsideAGuess) {
  const Model model = random_model(GetParam().config, DType::f32, 1);
  const Talk whole = talk(model, options(Drafting::off), 3);
  for (const int64_t length : {1, 2, 7, 30}) {
    const auto shorter = [&](Request& request, int) { request.max_tokens = length; };
    expect_same(talk(model, options(Drafting::off), 3, shorter), talk(model, options(Drafting::lookup), 3, shorter));
  }
  for (size_t at = 0; at < 60; at += 9) {  // the token there stops the reply, at the latest there
    const auto stops = [&](Request& request, int i) { request.stop_tokens = {whole.said[size_t(i)].tokens[at]}; };
    const Talk with = talk(model, options(Drafting::lookup), 3, stops);
    expect_same(talk(model, options(Drafting::off), 3, stops), with);
    for (const Said& said : with.said) EXPECT_EQ(said.how, Finish::stop);
  }
  const auto refuses = [&](Request& request, int) {
    request.on_token = [inner = request.on_token, count = 0](const Token& token) mutable { return inner(token) && ++count < 23; };
  };
  const Talk refused = talk(model, options(Drafting::lookup), 3, refuses);
  expect_same(talk(model, options(Drafting::off), 3, refuses), refused);
  for (const Said& said : refused.said) EXPECT_EQ(said.tokens.size(), 23u) << "nothing is delivered behind a refusal";
}

TEST_P(Drafts, CancelledAmongOthers) {
  const Model model = random_model(GetParam().config, DType::f32, 1);
  std::vector<Said> said(3);
  Engine engine(model, options(Drafting::lookup));
  std::vector<uint64_t> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(engine.submit(repeating(said[size_t(i)], i, 60)));
  for (int i = 0; i < 12; ++i) engine.step();
  engine.cancel(ids[1]);
  while (engine.step()) {
  }
  const Talk alone = talk(model, options(Drafting::off), 3);
  EXPECT_EQ(said[1].how, Finish::cancelled);
  EXPECT_EQ(said[0].tokens, alone.said[0].tokens);
  EXPECT_EQ(said[2].tokens, alone.said[2].tokens);
  EXPECT_TRUE(std::equal(said[1].tokens.begin(), said[1].tokens.end(), alone.said[1].tokens.begin()));
}

INSTANTIATE_TEST_SUITE_P(Kinds, Drafts, testing::ValuesIn(small_configs()), [](const auto& info) { return info.param.name; });

TEST(DraftsTest, RandomTextIsLeftAlone) {
  const Model model = random_model(small_configs()[0].config, DType::f32, 1);
  Said said;
  Request request = repeating(said, 1, 400);
  request.sampling = {};
  request.sampling.temperature = 5;  // nearly uniform over 97 tokens
  Engine engine(model, {.cache_rows = 1024, .max_rows = 64, .prompt_chunk = 32});
  engine.submit(std::move(request));
  while (engine.step()) {
  }
  EXPECT_EQ(said.tokens.size(), 400u);
  EXPECT_LT(engine.drafts().drafted, 60) << "guesses that fail are given up";
}

}  // namespace
}  // namespace hadal
