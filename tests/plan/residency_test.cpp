// A budget is divided, kept and refused as it should be.
#include "plan/residency.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "infer/expert_store.h"
#include "infer/kv_cache.h"
#include "infer/model.h"
#include "model/config.h"

namespace hadal {
namespace {

Model moe_model() {
  ModelConfig c;
  c.family = "deepseek", c.vocab = 97, c.dim = 128, c.layers = 3, c.dense_layers = 1, c.context = 512;
  c.heads = 2, c.kv_heads = 1, c.head_dim = 16, c.ffn_dim = 64, c.attention_scale = 0.25f;
  c.moe = {.experts = 32, .active = 2, .shared = 1, .expert_dim = 48};
  return random_model(c, DType::bf16, 1);
}

constexpr int64_t plenty = int64_t(1) << 30;

TEST(Residency, EverythingFits) {
  const Model model = moe_model();
  const Residency r = fit(model, plenty, DType::f16, 64, 8);
  EXPECT_FALSE(r.streams);
  EXPECT_EQ(r.hit_rate, 1);
  EXPECT_EQ(r.arena, routed_expert_bytes(model));
  EXPECT_EQ(r.cache, KvCache::bytes(model.config, DType::f16, 64));
  EXPECT_LE(r.bytes(), plenty);
}

TEST(Residency, ExpertsGiveWay) {
  const Model model = moe_model();
  const Residency all = fit(model, plenty, DType::f16, 64, 8);
  const int64_t slot = ExpertStore::slot_bytes(model), budget = all.bytes() - all.arena + 16 * slot;
  const Residency r = fit(model, budget, DType::f16, 64, 8);
  EXPECT_TRUE(r.streams);
  EXPECT_EQ(r.slots, 16);
  EXPECT_EQ(r.arena, 16 * slot);
  EXPECT_DOUBLE_EQ(r.hit_rate, 16.0 / 64);
  EXPECT_LE(r.bytes(), budget);
}

TEST(Residency, SaysTheLeastThatWorks) {
  const Model model = moe_model();
  const Residency all = fit(model, plenty, DType::f16, 64, 8);
  const int64_t least = all.bytes() - all.arena + 4 * ExpertStore::slot_bytes(model);
  EXPECT_TRUE(fit(model, least, DType::f16, 64, 8).streams);
  EXPECT_THAT([&] { fit(model, least - 1, DType::f16, 64, 8); },
              testing::ThrowsMessage<Error>(testing::HasSubstr(fmt::format("expected at least {:.2f} GB", double(least) / 1e9))));
}

TEST(Residency, MissesCostTheDisksTime) {
  const Model model = moe_model();
  const Residency all = fit(model, plenty, DType::f16, 64, 8);
  const Residency some = fit(model, all.bytes() - all.arena + 16 * ExpertStore::slot_bytes(model), DType::f16, 64, 8);
  Machine machine;
  machine.read_all = 1e10, machine.flops_all = 1e11, machine.ops_all = 1e11;
  const double without = seconds_per_token(model, all, machine, 1e9, DType::f16, 0);
  EXPECT_DOUBLE_EQ(seconds_per_token(model, some, machine, 1e9, DType::f16, 0) - without,
                   2 * 2 * 0.75 * double(ExpertStore::slot_bytes(model)) / 1e9);
}

}  // namespace
}  // namespace hadal
