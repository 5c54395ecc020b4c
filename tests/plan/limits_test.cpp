// The counts agree with sums made by hand from the shapes.
#include "plan/limits.h"

#include <gtest/gtest.h>

#include "../infer/models.h"
#include "infer/model.h"
#include "model/presets.h"

namespace hadal {
namespace {

Model small(const std::string& name) {
  for (const NamedConfig& named : small_configs())
    if (named.name == name) return random_model(named.config, DType::f32, 1);
  ADD_FAILURE() << name;
  return {};
}

const Work& at(const PhaseWork& work, Phase phase) { return work[size_t(phase)]; }

TEST(Limits, OneTokenOfADenseModel) {
  const Model model = small("gqa");  // dim 30, 3 heads and 1 key head of 10, ffn 45, vocab 97, 2 layers
  const PhaseWork work = work_of(model, DType::f16, {.depth = 99});
  EXPECT_EQ(at(work, Phase::embed).bytes, 30 * 4);
  EXPECT_EQ(at(work, Phase::qkv).bytes, 2 * (30 * 30 + 2 * 10 * 30) * 4);
  EXPECT_EQ(at(work, Phase::qkv).float_ops, 2 * 2 * (30 * 30 + 2 * 10 * 30));
  EXPECT_EQ(at(work, Phase::attention).bytes, 2 * 100 * 20 * 2) << "100 rows of keys and values of 10, f16, 2 layers";
  EXPECT_EQ(at(work, Phase::attention).float_ops, 2 * 100 * 3 * (10 + 10) * 2);
  EXPECT_EQ(at(work, Phase::out).bytes, 2 * 30 * 30 * 4);
  EXPECT_EQ(at(work, Phase::mlp).float_ops, 2 * 2 * 3 * 30 * 45);
  EXPECT_EQ(at(work, Phase::head).bytes, 97 * 30 * 4);
  EXPECT_EQ(sum(work).integer_ops, 0);
}

TEST(Limits, ABatchReadsTheWeightsOnceAndEveryCache) {
  const Model model = small("gqa");
  const PhaseWork one = work_of(model, DType::f32, {.depth = 50}),
                  eight = work_of(model, DType::f32, {.sequences = 8, .depth = 50, .wanted = 8});
  for (const Phase phase : {Phase::qkv, Phase::out, Phase::mlp, Phase::head}) {
    EXPECT_EQ(at(eight, phase).bytes, at(one, phase).bytes);
    EXPECT_EQ(at(eight, phase).float_ops, 8 * at(one, phase).float_ops);
  }
  EXPECT_EQ(at(eight, Phase::attention).bytes, 8 * at(one, Phase::attention).bytes);
}

TEST(Limits, APromptIsATriangle) {
  const Model model = small("gqa");
  const PhaseWork work = work_of(model, DType::f32, {.rows = 100});
  EXPECT_EQ(at(work, Phase::attention).float_ops, 2 * (100 * 101 / 2) * 3 * 20 * 2);
  EXPECT_EQ(at(work, Phase::head).float_ops, 2 * 97 * 30) << "one row's logits";
  EXPECT_EQ(at(work, Phase::mlp).float_ops, 100 * 2 * 2 * 3 * 30 * 45);
}

TEST(Limits, AWindowHidesTheRest) {
  Model model = small("gqa");
  const double op = 3 * 20 * 2;  // of one row and one key in one layer
  model.config.attention_window = 10, model.config.attention_sinks = 2;
  EXPECT_EQ(at(work_of(model, DType::f16, {.depth = 99}), Phase::attention).float_ops, 2 * 12 * op);
  EXPECT_EQ(at(work_of(model, DType::f16, {.depth = 99}), Phase::attention).bytes, 2 * 12 * 20 * 2);
  EXPECT_EQ(at(work_of(model, DType::f16, {.depth = 5}), Phase::attention).float_ops, 2 * 6 * op) << "a window that is not full";
  EXPECT_EQ(at(work_of(model, DType::f16, {.rows = 100}), Phase::attention).float_ops, 2 * (12 * 13 / 2 + 88 * 12) * op);
  EXPECT_EQ(at(work_of(model, DType::f16, {.rows = 4, .depth = 50}), Phase::attention).bytes, 2 * (12 + 3) * 20 * 2);
  model.config.attention_window = model.config.attention_sinks = 0;
  model.config.attention_top_blocks = 1;
  EXPECT_EQ(at(work_of(model, DType::f16, {.depth = 999}), Phase::attention).float_ops, 2 * 64 * op);
}

TEST(Limits, AnInt8CacheIsReadAndMultipliedAsSuch) {
  const Model model = small("gqa");
  const PhaseWork all = work_of(model, DType::i8, {.depth = 99});
  const Work& work = at(all, Phase::attention);
  EXPECT_EQ(work.bytes, 2 * 100 * 2 * (12 + 4)) << "10 columns take 12, and a scale";
  EXPECT_EQ(work.integer_ops, 2 * 100 * 3 * 20 * 2);
  EXPECT_EQ(work.float_ops, 0);
}

TEST(Limits, OnlyTheChosenExpertsAreRead) {
  const Model model = small("moe");  // 5 experts of 14, 2 active, 2 shared, two layers of three
  const double expert = 3 * 14 * 30;
  const PhaseWork one = work_of(model, DType::f32, {});
  EXPECT_NEAR(at(one, Phase::experts).bytes, 2 * 2 * expert * 4, 1e-6);
  EXPECT_EQ(at(one, Phase::experts).float_ops, 2 * 2 * expert * 2);
  EXPECT_EQ(at(one, Phase::mlp).bytes, 3 * 45 * 30 * 4 + 2 * 2 * expert * 4) << "one dense layer; two shared experts in two layers";
  const PhaseWork counted = work_of(model, DType::f32, {.sequences = 4, .experts = 3});
  EXPECT_NEAR(at(counted, Phase::experts).bytes, 2 * 3 * expert * 4, 1e-6);
  EXPECT_EQ(at(counted, Phase::experts).float_ops, 4 * at(one, Phase::experts).float_ops);
  EXPECT_NEAR(at(work_of(model, DType::f32, {.rows = 1000}), Phase::experts).bytes, 2 * 5 * expert * 4, 1);
}

TEST(Limits, LatentsAndTheIndexer) {
  const Model model = small("mla");  // 3 heads, latent 18 + 6 rotated, nope 12, v 10
  const PhaseWork few = work_of(model, DType::f32, {.depth = 9});
  EXPECT_EQ(at(few, Phase::attention).bytes, 3 * 10 * 24 * 4);
  EXPECT_EQ(at(few, Phase::attention).float_ops, 3 * 10 * 3 * (18 + 6 + 18) * 2);
  EXPECT_EQ(at(few, Phase::latent).float_ops, 3 * 2 * 3 * (12 + 10) * 18);
  const int64_t rows = model.mla_expand_rows;
  const PhaseWork many = work_of(model, DType::f32, {.rows = rows});
  EXPECT_EQ(at(many, Phase::attention).float_ops, 3 * double(rows * (rows + 1) / 2) * 3 * (18 + 10) * 2);

  const Model sparse = small("v32");  // 16 keys chosen by 2 heads of 8
  const PhaseWork far = work_of(sparse, DType::f32, {.depth = 999});
  EXPECT_EQ(at(far, Phase::attention).bytes, 3 * 16 * (24 + 8) * 4);
  EXPECT_EQ(at(far, Phase::attention).float_ops, 3 * (16 * 3 * 42 * 2 + 1000 * 2 * 8 * 2));
}

TEST(Limits, ThePublishedShapesAgreeWithTheirParameterCount) {
  ModelConfig config = preset("coder-1.3b");
  config.layers = 2;  // one is like the other
  const Model model = random_model(config, DType::bf16, 1);
  const Work work = sum(work_of(model, DType::f16, {}));
  const double norms = 5 * 2048;
  EXPECT_NEAR(work.bytes, 2 * (double(count_parameters(config).active) - norms), 2 * 2 * 4096 * 2 + 1) << "and one cached row";
}

TEST(Limits, TheScarcerOneDecides) {
  Machine machine;
  machine.read_all = 10, machine.flops_all = 100, machine.ops_all = 400;
  EXPECT_EQ(least_seconds(machine, {.bytes = 50, .float_ops = 100}), 5);
  EXPECT_EQ(least_seconds(machine, {.bytes = 50, .float_ops = 1000}), 10);
  EXPECT_EQ(least_seconds(machine, {.bytes = 50, .float_ops = 500, .integer_ops = 2000}), 10) << "one core does the one, then the other";
}

}  // namespace
}  // namespace hadal
