// The parts of the loop: losses, optimizers, schedules, states.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "core/error.h"
#include "train/losses.h"
#include "train/optimizer.h"
#include "train/parts.h"
#include "train/schedule.h"
#include "train/state.h"
#include "train/weights.h"

namespace hadal::train {
namespace {
namespace fs = std::filesystem;

ModelConfig small_llama() {
  return parse_config(R"({"model_type": "llama", "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
                          "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
                          "tie_word_embeddings": false})",
                      "", "test");
}

double difference(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); }

// Queries and keys of the first layer's first head, what of them is rotated.
std::pair<Tensor, Tensor> turned_rows(const ModelConfig& config, const Params<Tensor>& params) {
  if (const auto* gqa = std::get_if<Gqa<Tensor>>(&params.blocks[0].attn)) {
    const int64_t width = gqa->q.size(0) / config.heads;
    return {gqa->q.narrow(0, 0, width), gqa->k.narrow(0, 0, width)};
  }
  const auto& mla = std::get<Mla<Tensor>>(params.blocks[0].attn);
  return {mla.q.narrow(0, config.nope_dim, config.rope_dim), mla.kv_down.narrow(0, config.kv_rank, config.rope_dim)};
}

TEST(InitialParams, TheFirstHeadOfALowerLayerSeesTheNearestTokensBest) {
  const std::string common =
      R"("vocab_size": 50, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                                "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "tie_word_embeddings": true})";
  for (const std::string kind :
       {R"({"model_type": "llama", "num_key_value_heads": 1,)",
        R"({"model_type": "deepseek_v3", "q_lora_rank": null, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16,
                                     "v_head_dim": 32, "n_routed_experts": 0, "num_nextn_predict_layers": 0,)"}) {
    const ModelConfig config = parse_config(kind + common, "", "test");
    const Params<Tensor> params = initial_params(config, 1);
    const std::vector<float> f = rope_frequencies(config);
    const Tensor angle = torch::arange(64).unsqueeze(1) * torch::tensor(std::vector<double>(f.begin(), f.end()), torch::kFloat);
    const Rope rope{angle.cos(), angle.sin(), config.rope.layout == RopeLayout::pairs};
    const Tensor h =
        rms_norm(params.embed.index_select(0, torch::randint(50, {64}, torch::kLong)), params.blocks[0].attn_norm, 1e-6, Path::algebra);
    const auto [q_rows, k_rows] = turned_rows(config, params);
    const auto turned = [&](const Tensor& w) { return rotate(project(h, w).view({1, 64, 1, -1}), rope, Path::algebra).view({64, -1}); };
    const Tensor scores = turned(q_rows).matmul(turned(k_rows).t()) * config.attention_scale;
    const auto apart = [&](int64_t positions) { return scores.diagonal(-positions).mean().item<double>(); };
    EXPECT_GT(apart(1), apart(8)) << kind;
    EXPECT_GT(apart(1), (apart(24) + apart(32) + apart(40)) / 3 + 4) << kind;
  }
}

TEST(NextTokenLoss, EqualsCrossEntropyAndItsGradient) {
  const ModelConfig config = small_llama();
  const Tensor targets = torch::randint(50, {3, 7}, torch::kLong), weights = torch::rand({3, 7}) * (torch::rand({3, 7}) > 0.4);
  std::vector<std::vector<Tensor>> gradients;
  std::vector<double> losses;
  for (const bool plain : {true, false}) {
    Params<Tensor> params = random_params(config, 3);
    torch::manual_seed(1);
    const Tensor x = torch::randn({3, 7, 16}).requires_grad_();
    Tensor loss;
    if (plain) {
      const Tensor log_p = logits_of(params, x, {.config = config, .path = Path::algebra}).log_softmax(-1);
      loss = -(log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1) * weights).sum();
    } else {
      loss = next_token_loss(params, params.norm, x, targets, weights, config);
    }
    (loss * 0.5).backward();
    losses.push_back(loss.item<double>());
    gradients.push_back({x.grad(), params.head.grad(), params.norm.grad()});
  }
  EXPECT_NEAR(losses[0], losses[1], 1e-4);
  for (size_t i = 0; i < 3; ++i) EXPECT_LE(difference(gradients[0][i], gradients[1][i]), 1e-5) << i;
}

TEST(Optimizer, AdamWEqualsTorchs) {
  const ModelConfig config = small_llama();
  Params<Tensor> ours = random_params(config, 5), theirs = random_params(config, 5);
  OptimizerConfig how;
  how.decay = 0;
  Optimizer optimizer(named(config, ours), how, torch::kFloat);
  torch::optim::AdamW reference(
      learnt(config, theirs), torch::optim::AdamWOptions(how.learning_rate).betas({how.beta1, how.beta2}).eps(how.epsilon).weight_decay(0));
  const std::vector<Tensor> a = learnt(config, ours), b = learnt(config, theirs);
  for (int step = 0; step < 5; ++step) {
    for (size_t i = 0; i < a.size(); ++i) {
      a[i].mutable_grad() = torch::randn(a[i].sizes());
      b[i].mutable_grad() = a[i].grad().clone();
    }
    optimizer.step(1);
    reference.step();
  }
  for (size_t i = 0; i < a.size(); ++i) EXPECT_LE(difference(a[i], b[i]), 1e-6);
}

TEST(Optimizer, MuonMovesAlongOrthogonalDirections) {
  torch::manual_seed(1);  // a matrix may be as good as singular: five steps do not mend that
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{2, 24, 8}, {2, 8, 24}, {1, 16, 16}}) {
    const Tensor any = torch::randn(shape), values = torch::linalg_svdvals(orthogonal(any));
    EXPECT_GT(values.min().item<double>(), 0.3);
    EXPECT_LT(values.max().item<double>(), 1.3);
    const Tensor rounded = torch::linalg_svdvals(orthogonal(any, torch::kBFloat16));
    EXPECT_GT(rounded.min().item<double>(), 0.25);
    EXPECT_LT(rounded.max().item<double>(), 1.35);
  }
  const ModelConfig config = small_llama();
  Params<Tensor> params = random_params(config, 5);
  const Params<Tensor> before = copy(config, params);
  OptimizerConfig how;
  how.kind = "muon";
  how.decay = 0;
  Optimizer optimizer(named(config, params), how, torch::kFloat);
  const auto& mlp = std::get<Mlp<Tensor>>(params.blocks[0].ffn);
  mlp.gate.mutable_grad() = torch::randn({32, 16});
  optimizer.step(1);
  const Tensor moved = (std::get<Mlp<Tensor>>(before.blocks[0].ffn).gate - mlp.gate).detach();
  EXPECT_NEAR(moved.norm().item<double>(), how.muon_rate * std::sqrt(2.) * std::sqrt(16.), 0.03);
  EXPECT_EQ(difference(params.embed, before.embed), 0) << "without a gradient nothing moves";
}

TEST(ClipGradients, ScalesAllTogether) {
  const Tensor a = torch::zeros({3}).requires_grad_(), b = torch::zeros({4}).requires_grad_();
  a.mutable_grad() = torch::full({3}, 2.);
  b.mutable_grad() = torch::full({4}, 1.);
  EXPECT_NEAR(gradient_norm({a, b}), 4, 1e-6);
  clip_gradients({a, b}, 4, 2);
  EXPECT_NEAR(a.grad()[0].item<double>(), 1, 1e-6);
  EXPECT_NEAR(b.grad()[0].item<double>(), 0.5, 1e-6);
  clip_gradients({a, b}, 2, 100);
  EXPECT_NEAR(gradient_norm({a, b}), 2, 1e-6) << "not clipped";
}

TEST(Schedule, WarmsUpAndEndsAtTheFloor) {
  ScheduleConfig s;
  s.steps = 100;
  s.warmup = 10;
  s.floor = 0.1;
  for (const char* shape : {"cosine", "linear", "trapezoid"}) {
    s.shape = shape;
    EXPECT_NEAR(rate_share(s, 0), 0.1, 1e-9) << shape;
    EXPECT_NEAR(rate_share(s, 9), 1, 1e-9) << shape;
    EXPECT_NEAR(rate_share(s, 10), 1, 1e-9) << shape;
    EXPECT_NEAR(rate_share(s, 100), 0.1, 1e-9) << shape;
    for (int64_t i = 11; i < 100; ++i) EXPECT_LE(rate_share(s, i), rate_share(s, i - 1)) << shape;
  }
  EXPECT_NEAR(rate_share(s, 80), 1, 1e-9) << "a trapezoid falls over its last fifth";
}

TEST(State, ComesBackBitForBit) {
  const fs::path output = fs::temp_directory_path() / fmt::format("hadal_state_{}", getpid());
  const Tensor values = torch::randn({5, 3}), other = torch::randn({2});
  RunState state{.step = 7, .skipped = 2, .losses = {1.25, 3.5}, .memories = {}};
  Memory memory{.rows = 4, .sinks = 1, .position = 9, .positions = {0, 5, 6, 7, 8}, .layers = {}};
  memory.layers.push_back({torch::randn({2, 5, 1, 4}), torch::randn({2, 5, 1, 4}), {}});
  state.memories.push_back(memory);
  save_state(state_folder(output, 7), state, {{"a", Role::matrix, values}, {"b", Role::bias, other}});
  EXPECT_EQ(saved_steps(output), std::vector<int64_t>{7});

  const Tensor a = torch::zeros({5, 3}), b = torch::zeros({2});
  const RunState back = load_state(state_folder(output, 7), {{"a", Role::matrix, a}, {"b", Role::bias, b}});
  EXPECT_TRUE(torch::equal(a, values) && torch::equal(b, other));
  EXPECT_EQ(back.step, 7);
  EXPECT_EQ(back.skipped, 2);
  EXPECT_EQ(back.losses, state.losses);
  ASSERT_EQ(back.memories.size(), 1u);
  EXPECT_EQ(back.memories[0].position, 9);
  EXPECT_EQ(back.memories[0].positions, memory.positions);
  EXPECT_TRUE(torch::equal(back.memories[0].layers[0].keys, memory.layers[0].keys));
  EXPECT_FALSE(back.memories[0].layers[0].index_keys.defined());
  EXPECT_THROW(load_state(state_folder(output, 7), {{"c", Role::matrix, a}}), Error);
  EXPECT_THROW(load_state(state_folder(output, 7), {{"a", Role::matrix, b}}), Error);
  fs::remove_all(output);
}

}  // namespace
}  // namespace hadal::train
