// Loads counted as the router chose, biases that even them out on text they were not fitted on, and the picture of it.
#include "eval/expert_load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "core/error.h"
#include "eval/load_picture.h"
#include "infer/model.h"

namespace hadal {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

ModelConfig mixture() {
  ModelConfig c;
  c.family = "deepseek", c.vocab = 97, c.dim = 24, c.layers = 3, c.heads = 3, c.kv_heads = 1, c.head_dim = 8, c.ffn_dim = 40,
  c.context = 64;
  c.attention_scale = 1 / std::sqrt(8.0f);
  c.dense_layers = 1;
  c.moe = {.experts = 8, .active = 2, .expert_dim = 12, .score = RouterScore::sigmoid, .bias = true, .normalize = true};
  return c;
}

std::vector<int32_t> text(int64_t count) {  // Zipf, as words are
  std::mt19937 random(1);
  std::vector<double> share;
  for (int i = 0; i < 97; ++i) share.push_back(1. / (i + 1));
  std::discrete_distribution<int32_t> word(share.begin(), share.end());
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& t : tokens) t = word(random);
  return tokens;
}

TEST(MeasureLoad, EveryRowCountsInEveryLayerOfExperts) {
  const Model model = random_model(mixture(), DType::f32, 1);
  const std::vector<LayerLoad> all = measure_load(model, text(1000), {}, {.context = 32}).layers;
  ASSERT_EQ(all.size(), 2u);
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].layer, int64_t(i) + 1);
    EXPECT_EQ(std::accumulate(all[i].load.begin(), all[i].load.end(), int64_t(0)), 2 * 31 * 32);
    EXPECT_EQ(all[i].figures.rows, 31 * 32);
  }
  const std::vector<LayerLoad> half = measure_load(model, text(1000), {}, {.context = 32, .every_second = true}).layers;
  EXPECT_EQ(half[0].figures.rows, 16 * 32);
  EXPECT_EQ(model.load, nullptr) << "the caller's model counts nothing";
}

TEST(MeasureLoad, LossIsThatOfEveryTokenBehindTheFirst) {
  const Model model = random_model(mixture(), DType::f32, 1);
  const std::vector<int32_t> tokens = text(64);
  const TextLoad found = measure_load(model, tokens, {}, {.context = 64, .loss = true, .feed = {.cache = DType::f32}});
  EXPECT_EQ(found.layers[0].figures.rows, 64);
  double sum = 0;
  Feeder(model, {.cache = DType::f32}, 64).run(tokens, 0, 63, [&](int64_t row, Mat<float> logits) {
    for (int64_t r = 0; r < logits.rows; ++r) {
      double all = 0;
      for (int64_t i = 0; i < logits.cols; ++i) all += std::exp(double(logits.row(r)[i]));
      sum += std::log(all) - double(logits.row(r)[tokens[size_t(row + r + 1)]]);
    }
  });
  EXPECT_NEAR(found.loss, sum / 63, 1e-4);
}

TEST(CalibrateBiases, EvensTheLoadOfOtherText) {
  const Model model = random_model(mixture(), DType::f32, 1);
  const std::vector<int32_t> tokens = text(20'000);
  const BalanceOptions options{.context = 64, .every_second = true};
  const auto worst = [&](const Model& m) {
    double spread = 0;
    for (const LayerLoad& l : measure_load(m, tokens, {}, options).layers) spread = std::max(spread, l.figures.spread);
    return spread;
  };
  const std::vector<LayerBias> biases = calibrate_biases(model, tokens, {}, options);
  ASSERT_EQ(biases.size(), 2u);
  const double before = worst(model), after = worst(with_biases(model, biases));
  EXPECT_GT(before, 0.3);
  EXPECT_LT(after, before / 5);  // few tokens make up most of this text, and a token's rows are nearly alike
}

TEST(ExpertLoad, Refuses) {
  ModelConfig dense = mixture();
  dense.moe = {};
  const std::vector<int32_t> tokens = text(200);
  EXPECT_THAT([&] { measure_load(random_model(dense, DType::f32, 1), tokens, {}, {.context = 32}); },
              ThrowsMessage<Error>(HasSubstr("found a dense")));
  ModelConfig unbiased = mixture();
  unbiased.moe.bias = false;
  EXPECT_THAT([&] { calibrate_biases(random_model(unbiased, DType::f32, 1), tokens, {}, {.context = 32}); },
              ThrowsMessage<Error>(HasSubstr("noaux_tc")));
  EXPECT_THAT([&] { calibrate_biases(random_model(mixture(), DType::f32, 1), text(40), {}, {.context = 32}); },
              ThrowsMessage<Error>(HasSubstr("two or more")));
}

TEST(LoadPicture, HasASquareForEveryExpert) {
  LayerLoad layer{3, {10, 0, 20, 10}, load_figures(std::vector<int64_t>{10, 0, 20, 10}, 1), 0};
  const std::string svg = load_picture({layer}, "a <b> & c");
  EXPECT_THAT(svg, HasSubstr("a &lt;b&gt; &amp; c"));
  EXPECT_THAT(svg, HasSubstr("layer 3"));
  EXPECT_THAT(svg, HasSubstr("#0000ff"));
  EXPECT_THAT(svg, HasSubstr("#ff0000"));
  EXPECT_THAT(svg, HasSubstr("spread 200.00 %"));
  EXPECT_THAT(load_picture({}, "nothing"), HasSubstr("</svg>"));
}

}  // namespace
}  // namespace hadal
