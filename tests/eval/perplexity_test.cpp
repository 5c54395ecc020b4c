#include "eval/perplexity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"

namespace hadal {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

ModelConfig tiny() {
  ModelConfig c;
  c.family = "llama";
  c.vocab = 37;
  c.dim = 24;
  c.layers = 2;
  c.heads = 3;
  c.kv_heads = 1;
  c.head_dim = 8;
  c.ffn_dim = 40;
  c.dense_layers = 2;
  c.context = 64;
  c.attention_scale = 1 / std::sqrt(8.0f);
  return c;
}

std::vector<int32_t> some_tokens(int64_t count, int64_t vocab) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(int32_t((i * i * 7 + i * 3 + 1) % vocab));
  return tokens;
}

PerplexityOptions options(int64_t context, int64_t chunk = 512) {
  PerplexityOptions o;
  o.context = context;
  o.feed = {DType::f32, chunk};
  return o;
}

class PerplexityTest : public testing::Test {
 protected:
  const Model model = random_model(tiny(), DType::f32, 5);
};

// The logits of every row of one text, by one pass over all of it.
std::vector<std::vector<double>> log_probabilities(const Model& model, const std::vector<int32_t>& tokens) {
  std::vector<std::vector<double>> rows;
  Feeder feeder(model, {DType::f32, 512}, int64_t(tokens.size()));
  feeder.run(tokens, 0, int64_t(tokens.size()), [&](int64_t, Mat<float> logits) {
    for (int64_t r = 0; r < logits.rows; ++r) {
      double sum = 0;
      for (int64_t i = 0; i < logits.cols; ++i) sum += std::exp(double(logits.row(r)[i]));
      rows.emplace_back();
      for (int64_t i = 0; i < logits.cols; ++i) rows.back().push_back(double(logits.row(r)[i]) - std::log(sum));
    }
  });
  return rows;
}

TEST_F(PerplexityTest, IsTheMeanOverTheSecondHalfOfEachWindow) {
  for (const int64_t context : {3, 7, 8, 15, 16, 17, 64}) {
    const std::vector<int32_t> tokens = some_tokens(3 * context + 2, model.config.vocab);  // the last window is partial
    double sum = 0, squares = 0;
    int64_t scored = 0;
    for (int64_t w = 0; w < 3; ++w) {
      std::vector<int32_t> window(tokens.begin() + w * context, tokens.begin() + (w + 1) * context);
      window[0] = 2;
      const auto rows = log_probabilities(model, window);
      for (int64_t i = context / 2 + 1; i < context; ++i, ++scored) {
        const double nll = -rows[size_t(i - 1)][size_t(window[size_t(i)])];
        sum += nll;
        squares += nll * nll;
      }
    }
    const double mean = sum / double(scored), deviation = std::sqrt(squares / double(scored) - mean * mean);
    const Perplexity found = measure_perplexity(model, tokens, 2, options(context));
    EXPECT_EQ(found.windows, 3) << context;
    EXPECT_EQ(found.scored, scored) << context;
    EXPECT_NEAR(found.mean_nll, mean, 1e-6) << context;
    EXPECT_NEAR(found.value, std::exp(mean), 1e-4) << context;
    EXPECT_NEAR(found.standard_error, std::exp(mean) * deviation / std::sqrt(double(scored - 1)), 1e-4) << context;
  }
}

TEST_F(PerplexityTest, WhatIsOnlyReadIsNotScored) {
  const std::vector<int32_t> tokens = some_tokens(32, model.config.vocab);
  const auto summed = [&](int64_t read_only) {
    PerplexityOptions o = options(32);
    o.read_only = read_only;
    const Perplexity found = measure_perplexity(model, tokens, {}, o);
    EXPECT_EQ(found.scored, 31 - read_only);
    return found.mean_nll * double(found.scored);
  };
  const auto rows = log_probabilities(model, tokens);
  EXPECT_NEAR(summed(0) - summed(1), -rows[0][size_t(tokens[1])], 1e-5);
  EXPECT_NEAR(summed(30), -rows[30][size_t(tokens[31])], 1e-5);
  EXPECT_EQ(summed(16), measure_perplexity(model, tokens, {}, options(32)).mean_nll * 15);
  EXPECT_THAT([&] { summed(31); }, ThrowsMessage<Error>(HasSubstr("31 tokens of a window are only read: expected 0 to 30")));
}

TEST_F(PerplexityTest, DoesNotDependOnTheChunk) {
  const std::vector<int32_t> tokens = some_tokens(70, model.config.vocab);
  const double whole = measure_perplexity(model, tokens, {}, options(32)).mean_nll;
  for (const int64_t chunk : {1, 5, 16, 31, 33})
    EXPECT_NEAR(measure_perplexity(model, tokens, {}, options(32, chunk)).mean_nll, whole, 1e-6) << chunk;
}

TEST_F(PerplexityTest, BeginTokenReplacesTheFirstOfAWindow) {
  std::vector<int32_t> tokens = some_tokens(16, model.config.vocab);
  const double with = measure_perplexity(model, tokens, 9, options(16)).mean_nll;
  EXPECT_NE(measure_perplexity(model, tokens, {}, options(16)).mean_nll, with);
  tokens[0] = 9;
  EXPECT_EQ(measure_perplexity(model, tokens, {}, options(16)).mean_nll, with);
}

TEST_F(PerplexityTest, AModelThatKnowsNothingHasThePerplexityOfItsVocabulary) {
  Model ignorant = random_model(tiny(), DType::f32, 5);
  const std::vector<float> zeros(size_t(ignorant.config.vocab * ignorant.config.dim));
  ignorant.params.head.data = reinterpret_cast<const std::byte*>(zeros.data());
  const Perplexity found = measure_perplexity(ignorant, some_tokens(64, 37), {}, options(16));
  EXPECT_NEAR(found.value, 37, 1e-5);
  EXPECT_NEAR(found.standard_error, 0, 1e-5);
}

TEST_F(PerplexityTest, StopsAfterMaxWindowsAndReportsEach) {
  PerplexityOptions o = options(8);
  o.max_windows = 3;
  std::vector<int64_t> seen;
  const Perplexity found = measure_perplexity(model, some_tokens(64, 37), {}, o, [&](const Perplexity& so_far, int64_t windows) {
    seen.push_back(so_far.windows);
    EXPECT_EQ(windows, 3);
  });
  EXPECT_EQ(found.windows, 3);
  EXPECT_EQ(found.scored, 3 * 3);
  EXPECT_THAT(seen, testing::ElementsAre(1, 2, 3));
}

TEST_F(PerplexityTest, SaysWhatIsWrong) {
  const auto measure = [&](std::vector<int32_t> tokens, int64_t context) { measure_perplexity(model, tokens, {}, options(context)); };
  EXPECT_THAT([&] { measure(some_tokens(7, 37), 8); },
              ThrowsMessage<Error>(HasSubstr("the text has 7 tokens: expected at least one window of 8")));
  EXPECT_THAT([&] { measure({}, 8); }, ThrowsMessage<Error>(HasSubstr("the text has 0 tokens")));
  EXPECT_THAT([&] { measure(some_tokens(99, 37), 65); },
              ThrowsMessage<Error>(HasSubstr("a window of 65 tokens is out of range: expected 3 to 64")));
  EXPECT_THAT([&] { measure(some_tokens(99, 37), 2); }, ThrowsMessage<Error>(HasSubstr("a window of 2 tokens")));
  EXPECT_THAT([&] { measure({1, 2, 3, 37}, 4); }, ThrowsMessage<Error>(HasSubstr("token id 37 is out of range: expected 0 to 36")));
  EXPECT_THAT([&] { measure({1, -1, 3, 4}, 4); }, ThrowsMessage<Error>(HasSubstr("token id -1 is out of range")));
}

TEST_F(PerplexityTest, FeederVisitsExactlyTheRowsAskedFor) {
  const std::vector<int32_t> tokens = some_tokens(17, 37);
  for (const int64_t chunk : {1, 7, 16, 17, 127}) {
    Feeder feeder(model, {DType::f32, chunk}, 17);
    for (const auto& [first, end] : std::vector<std::pair<int64_t, int64_t>>{{0, 17}, {8, 16}, {16, 17}, {5, 5}}) {
      int64_t next = first;
      feeder.run(tokens, first, end, [&](int64_t row, Mat<float> logits) {
        EXPECT_EQ(row, next) << chunk;
        EXPECT_EQ(logits.cols, 37);
        next += logits.rows;
      });
      EXPECT_EQ(next, end) << chunk;
    }
  }
}

TEST_F(PerplexityTest, FeederCanBeUsedAgainAfterAVisitorThrew) {
  const std::vector<int32_t> tokens = some_tokens(17, 37);
  Feeder feeder(model, {DType::f32, 5}, 17);
  for (int i = 0; i < 3; ++i) EXPECT_THROW(feeder.run(tokens, 0, 17, [](int64_t, Mat<float>) { throw Error("enough"); }), Error);
  int64_t rows = 0;
  feeder.run(tokens, 0, 17, [&](int64_t, Mat<float> logits) { rows += logits.rows; });
  EXPECT_EQ(rows, 17);
}

TEST(Npy, HeaderIsAligned) {
  for (const int64_t rows : {int64_t(0), int64_t(1), int64_t(127), int64_t(1) << 40}) {
    const std::string header = npy_header(rows, 129280);
    EXPECT_EQ(header.size() % 64, 0u);
    EXPECT_EQ(header.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
    EXPECT_EQ(size_t(uint8_t(header[8])) + 256 * size_t(uint8_t(header[9])), header.size() - 10);
    EXPECT_THAT(header, HasSubstr("'shape': (" + std::to_string(rows) + ", 129280)"));
    EXPECT_EQ(header.back(), '\n');
  }
}

}  // namespace
}  // namespace hadal
