// A mixture made from a dense model says what the dense model says, in the trainer and, written and read back, in the engine.
#include "train/upcycle_params.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include "train/torch.h"

#include "core/error.h"
#include "core/files.h"
#include "eval/logits.h"
#include "infer/model.h"
#include "model/write_config.h"
#include "train/forward.h"

namespace hadal::train {
namespace {

ModelConfig dense_gqa() {
  ModelConfig c;
  c.family = "llama", c.vocab = 97, c.dim = 32, c.layers = 3, c.context = 64, c.heads = 4, c.kv_heads = 2, c.head_dim = 8, c.ffn_dim = 48;
  c.attention_scale = 0.35f;
  return c;
}

ModelConfig dense_mla() {
  ModelConfig c = dense_gqa();
  c.family = "deepseek_v3", c.attention = AttentionKind::mla, c.rope.layout = RopeLayout::pairs;
  c.q_rank = 12, c.kv_rank = 16, c.nope_dim = 8, c.rope_dim = 4, c.v_dim = 8;
  return c;
}

double largest_difference(const ModelConfig& dense, const Upcycling& how) {
  const torch::NoGradGuard no_grad;
  const Params<Tensor> before = random_params(dense, 3), after = upcycle(dense, before, how);
  const ModelConfig config = upcycled_config(dense, how);
  const Tensor tokens = torch::randint(dense.vocab, {4, 50}, torch::kLong);
  const Tensor a = logits_of(before, forward(before, tokens, {.config = dense}), {.config = dense});
  const Tensor b = logits_of(after, forward(after, tokens, {.config = config}), {.config = config});
  return (a - b).abs().max().item<double>();
}

TEST(Upcycle, SaysWhatTheDenseModelSays) {
  for (const ModelConfig& dense : {dense_gqa(), dense_mla()}) {
    EXPECT_LE(largest_difference(dense, {.experts = 8, .active = 2}), 1e-4) << "whole copies";
    EXPECT_LE(largest_difference(dense, {.experts = 8, .active = 2, .expert_dim = 24}), 1e-4) << "one copy of two slices at a time";
    EXPECT_LE(largest_difference(dense, {.experts = 24, .active = 6, .shared = 1, .expert_dim = 12}), 1e-4) << "two copies of three slices";
    EXPECT_LE(largest_difference(dense, {.experts = 24, .active = 3, .shared = 1, .expert_dim = 12, .groups = 8, .active_groups = 3}), 1e-4)
        << "groups of one copy each";
    EXPECT_LE(largest_difference(dense, {.experts = 8, .active = 4, .dense_layers = 1, .score = RouterScore::sigmoid, .bias = false}),
              1e-4);
  }
}

TEST(Upcycle, TheEngineReadsItAndSaysTheSame) {
  const torch::NoGradGuard no_grad;
  for (const ModelConfig& dense : {dense_gqa(), dense_mla()}) {
    const Upcycling how{.experts = 8, .active = 2, .expert_dim = 24};
    const ModelConfig config = upcycled_config(dense, how);
    const Params<Tensor> before = random_params(dense, 3);
    const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / ("upcycled_" + dense.family);
    std::filesystem::create_directories(folder);
    write_atomically(folder / "config.json", [&](std::ostream& out) { out << config_json(config, ""); });
    save_params(config, upcycle(dense, before, how), DType::f32, folder / "model.safetensors");

    const Model engine = hadal::load_model(read_config(folder), open_checkpoint(folder));
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < 60; ++i) ids.push_back(i * i % 97);
    const Tensor tokens = torch::tensor(ids, torch::kInt).to(torch::kLong).unsqueeze(0);
    const Tensor expected = logits_of(before, forward(before, tokens, {.config = dense}), {.config = dense})[0];
    Tensor found = torch::empty_like(expected);
    Feeder(engine, {.cache = DType::f32}, 60).run(ids, 0, 60, [&](int64_t row, Mat<float> logits) {
      for (int64_t r = 0; r < logits.rows; ++r) std::copy_n(logits.row(r), logits.cols, found[row + r].data_ptr<float>());
    });
    EXPECT_LE((expected - found).abs().max().item<double>(), 1e-4) << dense.family;
    std::filesystem::remove_all(folder);
  }
}

TEST(Upcycle, RefusesSizesThatLeaveNoWholeCopies) {
  const auto message = [](const Upcycling& how) -> std::string {
    try {
      upcycled_config(dense_gqa(), how);
      return "";
    } catch (const Error& e) {
      return e.what();
    }
  };
  EXPECT_THAT(message({.expert_dim = 20}), testing::HasSubstr("a divisor of the dense width 48"));
  EXPECT_THAT(message({.experts = 8, .active = 3, .expert_dim = 24}), testing::HasSubstr("a multiple of the 2 routed slices"));
  EXPECT_THAT(message({.experts = 8, .active = 1}), testing::HasSubstr("from 2"));
  EXPECT_THAT(message({.shared = 2, .expert_dim = 24}), testing::HasSubstr("shared"));
  EXPECT_THAT(message({.experts = 7, .active = 2, .expert_dim = 24}), testing::HasSubstr("experts"));
  EXPECT_THAT(message({.experts = 8, .active = 2, .groups = 3}), testing::HasSubstr("groups: expected a divisor of the 8 copies"));
  EXPECT_THAT(message({.experts = 8, .active = 4, .groups = 4, .active_groups = 1}), testing::HasSubstr("that hold the 4 active, found 1"));
}

}  // namespace
}  // namespace hadal::train
