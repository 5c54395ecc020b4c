// Figures and breakdowns are consistent in themselves, for every kind of model.
#include "plan/measure.h"

#include <gtest/gtest.h>

#include <numeric>

#include "../infer/models.h"
#include "core/error.h"
#include "infer/model.h"

namespace hadal {
namespace {

Machine slow_machine() {
  Machine machine;
  machine.read_all = 1e9, machine.flops_all = 1e9, machine.ops_all = 1e9;
  return machine;
}

class Measure : public ::testing::TestWithParam<NamedConfig> {};

TEST_P(Measure, Figures) {
  const Model model = random_model(GetParam().config, DType::f32, 1);
  for (Figure f : {Figure{.prefill = true, .tokens = 1}, Figure{.prefill = true, .tokens = 200}, Figure{.tokens = 1},
                   Figure{.tokens = 3, .depth = 1, .batch = 2}, Figure{.tokens = 5, .depth = 129, .batch = 3}}) {
    int64_t passes = 0;
    const MeasureOptions options{.cache = DType::f16, .chunk = 64, .repeats = 2, .between_passes = [&] { ++passes; }};
    measure(model, options, f);
    f.least = least_seconds(slow_machine(), f.work);
    EXPECT_EQ(passes, 3 * (f.prefill ? (f.tokens + 63) / 64 : f.tokens));
    EXPECT_GT(f.seconds, 0);
    EXPECT_GE(f.spread(), 0);
    EXPECT_NEAR(f.rate() / f.limit(), f.share(), 1e-12);
    EXPECT_NEAR(f.rate(), double(f.tokens * f.batch) / f.seconds, 1e-9);
  }
}

TEST_P(Measure, Breakdowns) {
  const Model model = random_model(GetParam().config, DType::f32, 1);
  for (const Figure& f : {Figure{.prefill = true, .tokens = 200}, Figure{.tokens = 5, .depth = 65, .batch = 3}}) {
    const Breakdown b = profile(model, {.cache = DType::f32, .chunk = 200, .repeats = 2}, f);
    for (int i = 0; i < phases; ++i) {
      if (b.work[size_t(i)].bytes == 0) continue;
      EXPECT_GT(b.time.seconds[size_t(i)], 0) << name_of(Phase(i)) << " has work but took no time";
    }
    int64_t layers = 0;
    for (int64_t layer = 0; layer < model.config.layers; ++layer) layers += model.config.is_moe(layer);
    EXPECT_LE(b.time.experts, layers * model.config.moe.experts);
    EXPECT_GE(b.time.experts, layers * model.config.moe.active);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Measure, ::testing::ValuesIn(small_configs()), [](const auto& info) { return info.param.name; });

TEST(MeasureErrors, ACacheThatDoesNotFit) {
  const Model model = random_model(small_configs()[0].config, DType::f32, 1);
  Figure f{.tokens = 1, .depth = 1 << 20, .batch = 1 << 16};
  EXPECT_GT(cache_bytes(model, DType::f16, f), int64_t(1) << 42);
  EXPECT_THROW(measure(model, {}, f), Error);
}

TEST(MeasureErrors, WhatThePassesCallMayEndIt) {
  const Model model = random_model(small_configs()[0].config, DType::f32, 1);
  Figure f{.tokens = 4};
  EXPECT_THROW(measure(model, {.between_passes = [] { throw Error("enough"); }}, f), Error);
}

}  // namespace
}  // namespace hadal
