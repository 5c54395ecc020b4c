// The trainer's forward pass: equal to the published implementation's recorded logits and to the engine's, a gradient for every parameter,
// and the same numbers whether blocks are recomputed, attention is fused, or text comes in segments.
#include "train/forward.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include "train/torch.h"

#include <filesystem>

#include "infer/forward.h"
#include "model/source.h"
#include "train/parts.h"
#include "train/trainer.h"
#include "train/weights.h"

namespace hadal::train {
namespace {
namespace fs = std::filesystem;

fs::path folder() { return fs::path(HADAL_SOURCE) / "tests" / "golden"; }

std::vector<std::string> golden_names() {  // those in Hugging Face layout
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder()))
    if (fs::exists(entry.path() / "model" / "config.json") && fs::exists(entry.path() / "golden.safetensors"))
      names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

Tensor tensor_of(const Checkpoint& file, const std::string& name) {
  const StoredTensor& t = file.tensors.at(name);
  const bool whole = t.dtype != DType::f32;
  return torch::from_blob(const_cast<std::byte*>(t.data), t.shape, whole ? torch::kLong : torch::kFloat).clone();
}

struct Case {
  ModelConfig config;
  Params<Tensor> params;
  Tensor ids, logits;  // [1, time], [1, time, vocab]
  double tolerance;
};

Case read_case(const std::string& name, bool draft = false) {
  const ModelSource source(folder() / name / "model");
  const Checkpoint golden = open_checkpoint(folder() / name / "golden.safetensors");
  ModelConfig config = source.config();
  config.load_draft = draft;
  Params<Tensor> params = load_params(config, source.checkpoint());
  return {config, params, tensor_of(golden, "ids").view({1, -1}), tensor_of(golden, "logits").unsqueeze(0),
          double(tensor_of(golden, "tolerance").item<float>())};
}

double difference(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); }

Tensor logits(const Case& c, const Pass& pass) { return logits_of(c.params, forward(c.params, c.ids, pass), pass); }

class Parity : public testing::TestWithParam<std::string> {};

TEST_P(Parity, LogitsEqualThePublishedImplementation) {
  const torch::NoGradGuard no_grad;
  const Case c = read_case(GetParam());
  EXPECT_LE(difference(logits(c, {.config = c.config, .path = Path::algebra}), c.logits), c.tolerance);
  EXPECT_LE(difference(logits(c, {.config = c.config}), c.logits), c.tolerance) << "by kernels";
}

TEST(Draft, LogitsAndLossEqualThePublishedImplementation) {
  const torch::NoGradGuard no_grad;
  torch::manual_seed(1);
  int drafts = 0;
  for (const std::string& name : golden_names()) {
    const Checkpoint golden = open_checkpoint(folder() / name / "golden.safetensors");
    if (!golden.tensors.contains("draft")) continue;
    ++drafts;
    const Case c = read_case(name, true);
    const Pass pass{.config = c.config};
    const Tensor x = forward(c.params, c.ids, pass), want = tensor_of(golden, "draft"), norm = c.params.drafts[0].norm;
    const Tensor states = rms_norm(draft_forward(c.params, x, c.ids, pass), norm, c.config.norm_eps, Path::algebra);
    EXPECT_LE(difference(project(states, c.config.tied_head ? c.params.embed : c.params.head).squeeze(0), want), c.tolerance) << name;

    const Tensor targets = torch::cat({c.ids.slice(1, 1), c.ids.slice(1, 0, 1)}, 1), weights = torch::rand(c.ids.sizes());
    const Tensor of_targets = want.log_softmax(-1).gather(-1, targets.slice(1, 1).view({-1, 1})).flatten();
    EXPECT_NEAR(draft_loss(c.params, x, {c.ids, targets, weights}, pass).item<double>(),
                -(of_targets * weights.flatten().slice(0, 1)).sum().item<double>(), c.tolerance * double(c.ids.numel()))
        << name;
  }
  EXPECT_GT(drafts, 0);
}

TEST_P(Parity, EveryParameterGetsAGradient) {
  const Case c = read_case(GetParam());
  Tensor balance = torch::zeros({});
  const Pass pass{.config = c.config,
                  .balance = [](const Routing& r, int64_t) { return r.scores.square().mean(); },
                  .indexer_weight = c.config.indexer.heads > 0 ? 1. : 0.};
  logits(c, pass).log_softmax(-1).select(-1, 3).sum().backward();
  for (const NamedTensor& p : named(c.config, c.params)) {
    if (!p.tensor.requires_grad()) continue;
    // Of an expert that no row chose there is nothing to learn.
    const bool chosen = p.name.find(".experts.") == std::string::npos;
    ASSERT_TRUE(p.tensor.grad().defined() || !chosen) << p.name;
    if (!p.tensor.grad().defined()) continue;
    EXPECT_TRUE(p.tensor.grad().isfinite().all().item<bool>()) << p.name;
    EXPECT_TRUE(p.tensor.grad().abs().max().item<double>() > 0 || !chosen) << p.name;
  }
}

TEST_P(Parity, RecomputedBlocksGiveTheSameGradients) {
  std::vector<std::vector<Tensor>> gradients;
  for (const bool recompute : {false, true}) {
    const Case c = read_case(GetParam());
    const Pass pass{
        .config = c.config, .recompute = recompute, .balance = [](const Routing& r, int64_t) { return r.scores.square().mean(); }};
    logits(c, pass).log_softmax(-1).select(-1, 3).sum().backward();
    gradients.emplace_back();
    for (const Tensor& t : learnt(c.config, c.params)) gradients.back().push_back(t.grad().defined() ? t.grad() : torch::zeros_like(t));
  }
  for (size_t i = 0; i < gradients[0].size(); ++i)
    EXPECT_LE(difference(gradients[0][i], gradients[1][i]), 1e-5 * (1 + gradients[0][i].abs().max().item<double>()));
}

INSTANTIATE_TEST_SUITE_P(Golden, Parity, testing::ValuesIn(golden_names()), [](const auto& info) { return info.param; });

// With a window, text in segments behind a memory of the window's rows is the same as the whole text at once.
TEST(Memory, SegmentsEqualTheWholeTextUnderAWindow) {
  const torch::NoGradGuard no_grad;
  for (const std::string name : {"llama", "deepseek_v2_lite", "deepseek_v3"}) {
    Case c = read_case(name);
    c.config.attention_window = 6;
    c.config.attention_sinks = 2;
    const Tensor whole = forward(c.params, c.ids, {.config = c.config});
    Memory memory{.rows = 5, .sinks = 2};
    std::vector<Tensor> parts;
    for (const Tensor& segment : c.ids.split(7, 1)) parts.push_back(forward(c.params, segment, {.config = c.config, .memory = &memory}));
    EXPECT_LE(difference(torch::cat(parts, 1), whole), 1e-4) << name;
    EXPECT_EQ(memory.positions.size(), 7u);
    EXPECT_EQ(memory.layers[0].keys.size(1), 7);
  }
}

}  // namespace
}  // namespace hadal::train
