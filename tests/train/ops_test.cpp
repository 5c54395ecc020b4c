// Our operations against the formulas they stand for, values and gradients; in double by finite differences too.
#include "train/ops.h"

#include <gtest/gtest.h>

#include <functional>

#include "train/parts.h"

namespace hadal::train {
namespace {

using Tensors = std::vector<Tensor>;
using Function = std::function<Tensor(const Tensors&)>;

double difference(const Tensor& a, const Tensor& b) {
  return a.numel() == 0 ? 0 : (a.to(torch::kDouble) - b.to(torch::kDouble)).abs().max().item<double>();
}

struct Outcome {
  Tensor value;
  Tensors gradients;
};
Outcome run(const Function& f, const Tensors& at) {
  Tensors inputs;
  for (const Tensor& t : at) inputs.push_back(t.detach().clone().requires_grad_());
  const Tensor value = f(inputs);
  torch::manual_seed(11);
  (value.to(torch::kDouble) * torch::randn(value.sizes(), torch::kDouble)).sum().backward();
  Outcome outcome{value.detach(), {}};
  for (const Tensor& t : inputs) outcome.gradients.push_back(t.grad().defined() ? t.grad() : torch::zeros_like(t));
  return outcome;
}

// Values and gradients of `ours` and `plain` in every type.
void compare(const Function& ours, const Function& plain, const Tensors& inputs) {
  for (const auto& [type, tolerance] : {std::pair{torch::kDouble, 1e-10}, {torch::kFloat, 2e-5}, {torch::kBFloat16, 6e-2}}) {
    Tensors typed, exact;
    for (const Tensor& t : inputs) {
      typed.push_back(t.to(type));
      exact.push_back(typed.back().to(torch::kDouble));  // what the type can hold
    }
    const Outcome a = run(ours, typed), b = run(plain, exact);
    EXPECT_LE(difference(a.value, b.value), tolerance * (1 + b.value.abs().max().item<double>())) << type;
    for (size_t i = 0; i < inputs.size(); ++i)
      EXPECT_LE(difference(a.gradients[i], b.gradients[i]), tolerance * (1 + b.gradients[i].abs().max().item<double>()))
          << type << ", gradient of input " << i;
  }
}

// The gradient along random directions against the difference of values.
void check_gradient(const Function& f, const Tensors& inputs) {
  Tensors at;
  for (const Tensor& t : inputs) at.push_back(t.to(torch::kDouble));
  const Outcome outcome = run(f, at);
  torch::manual_seed(11);
  const Tensor along = torch::randn(outcome.value.sizes(), torch::kDouble);
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < at.size(); ++i) {
    const Tensor direction = torch::randn(at[i].sizes(), torch::kDouble);
    const double step = 1e-5;
    const auto moved = [&](double by) {
      Tensors there = at;
      there[i] = at[i] + direction * by;
      return (f(there) * along).sum().item<double>();
    };
    const double slope = (moved(step) - moved(-step)) / (2 * step), expected = (outcome.gradients[i] * direction).sum().item<double>();
    EXPECT_NEAR(slope, expected, 1e-6 * (1 + std::abs(expected))) << "input " << i;
  }
}

TEST(Ops, RmsNorm) {
  const Tensors inputs{torch::randn({3, 5, 17})};
  const Tensor weight = torch::randn({17}, torch::kDouble);
  const auto of = [&](auto f) {
    return [=](const Tensors& t) { return f(t[0], weight.to(t[0].scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat)); };
  };
  const Function ours = of([](const Tensor& x, const Tensor& w) { return ops::rms_norm(x, w, 1e-6); });
  compare(ours, of([](const Tensor& x, const Tensor& w) { return rms_norm(x, w, 1e-6, Path::algebra); }), inputs);
  check_gradient(ours, inputs);
  const Tensor x = torch::randn({600, 9}, torch::kDouble);
  check_gradient([&](const Tensors& t) { return ops::rms_norm(x, t[0], 1e-6); }, {torch::randn({9})});
}

TEST(Ops, Swiglu) {
  const Tensors inputs{torch::randn({4, 33}), torch::randn({4, 33})};
  const Function ours = [](const Tensors& t) { return ops::swiglu(t[0], t[1]); };
  compare(
      ours, [](const Tensors& t) { return at::silu(t[0]) * t[1]; }, inputs);
  check_gradient(ours, inputs);
}

TEST(Ops, Rotate) {
  const Tensor angle = torch::randn({5, 4}, torch::kDouble);
  for (const bool pairs : {false, true}) {
    const Rope rope{angle.cos(), angle.sin(), pairs};
    const Function ours = [&](const Tensors& t) { return ops::rotate(t[0], rope.cos, rope.sin, pairs); };
    compare(ours, [&](const Tensors& t) { return rotate(t[0], rope, Path::algebra); }, {torch::randn({2, 5, 3, 11})});
    check_gradient(ours, {torch::randn({2, 5, 3, 11})});
  }
}

// softmax over what a bool mask [batch, heads, queries, keys] shows
Tensor plain_attention(const Tensors& t, double scale, const Tensor& seen) {
  const int64_t group = t[0].size(2) / t[1].size(2);
  const Tensor k = t[1].repeat_interleave(group, 2), v = t[2].repeat_interleave(group, 2);
  const Tensor scores = torch::einsum("bthd,bshd->bhts", {t[0], k}) * scale;
  return torch::einsum("bhts,bshd->bthd", {scores.masked_fill(~seen, -INFINITY).softmax(-1), v});
}

TEST(Ops, Attend) {
  const int64_t queries = 70, kept = 9, keys = queries + kept;
  const Tensor t = torch::arange(queries).unsqueeze(1) + kept, s = torch::arange(keys).unsqueeze(0);
  const Tensor causal = s <= t, windowed = causal & ((s > t - 20) | (s < 3));
  const Tensor chosen = (torch::rand({2, 2, queries, keys}) < 0.4) | (s == t);
  const Tensors inputs{torch::randn({2, queries, 4, 12}), torch::randn({2, keys, 2, 12}), torch::randn({2, keys, 2, 7})};
  const auto check = [&](const ops::FlashMask& mask, const Tensor& seen) {
    const Function ours = [&](const Tensors& x) { return ops::attend(x[0], x[1], x[2], 0.3, mask); };
    compare(
        ours, [&](const Tensors& x) { return plain_attention(x, 0.3, seen); }, inputs);
    check_gradient(ours, inputs);
  };
  check({0, 0, kept}, causal);
  check({20, 3, kept}, windowed);
  check({0, 0, kept, ops::selected_words(chosen)}, causal & chosen.repeat_interleave(2, 1));
  check({20, 3, kept, ops::selected_words(chosen.slice(1, 0, 1))}, windowed & chosen.slice(1, 0, 1));
}

TEST(Ops, BlocksAreThoseOfTheAlgebra) {
  torch::manual_seed(1);  // two blocks may be as good as alike, and rounding decides
  constexpr int64_t kept = 40, time = 500;
  ModelConfig config;
  for (const LayerMask mask : {LayerMask{.top_blocks = 4}, LayerMask{.top_blocks = 1}, LayerMask{.top_blocks = 9},
                               LayerMask{.window = 300, .sinks = 3, .top_blocks = 4}}) {
    const auto attend_by = [&](Path path) -> Function {
      Rows rows{{config, path}, torch::kFloat, {}, torch::arange(kept, kept + time), torch::arange(kept + time), {}};
      return [=](const Tensors& t) { return attend({t[0], t[1], t[2], 0.4, mask}, rows); };
    };
    for (const auto type : {torch::kDouble, torch::kFloat}) {
      const Tensors inputs{torch::randn({2, time, 4, 12}, type), torch::randn({2, kept + time, 2, 12}, type),
                           torch::randn({2, kept + time, 2, 7}, type)};
      const Outcome ours = run(attend_by(Path::kernels), inputs), plain = run(attend_by(Path::algebra), inputs);
      EXPECT_LE(difference(ours.value, plain.value), 1e-5) << mask.top_blocks << " blocks, window " << mask.window;
      for (size_t i = 0; i < inputs.size(); ++i)
        EXPECT_LE(difference(ours.gradients[i], plain.gradients[i]), 1e-4) << "gradient of input " << i;
    }
  }
}

TEST(Ops, Experts) {
  MoeConfig config;
  config.experts = 5;
  config.active = 2;
  torch::manual_seed(4);
  const Tensor logits = torch::randn({40, 5});
  Tensors inputs{torch::randn({40, 12}), torch::rand({40, 2})};
  for (int e = 0; e < 5; ++e)
    for (const std::vector<int64_t>& shape : {std::vector<int64_t>{20, 12}, {20, 12}, {12, 20}})
      inputs.push_back(torch::randn(shape) * 0.3);
  const Tensor expert = choose_experts(logits, config, {}).expert;
  const auto gather = [&](const Tensors& t) {
    std::vector<Mlp<Tensor>> experts;
    for (size_t e = 0; e < 5; ++e) experts.push_back({t[2 + 3 * e], t[3 + 3 * e], t[4 + 3 * e]});
    return experts;
  };
  const Function ours = [&](const Tensors& t) {
    // What is not double keeps its parameters in float32.
    Tensors wide = t;
    for (size_t i = 1; i < wide.size(); ++i)
      if (wide[i].scalar_type() == torch::kBFloat16) wide[i] = wide[i].to(torch::kFloat);
    return ops::experts(t[0], {{}, {}, expert, wide[1]}, gather(wide));
  };
  const Function plain = [&](const Tensors& t) {
    const std::vector<Mlp<Tensor>> experts = gather(t);
    Tensors rows;
    for (int64_t r = 0; r < 40; ++r) {
      Tensor sum = torch::zeros({12}, t[0].options());
      for (int64_t slot = 0; slot < 2; ++slot) {
        const Mlp<Tensor>& w = experts[size_t(expert[r][slot].item<int64_t>())];
        sum = sum + t[1][r][slot] * w.down.mv(at::silu(w.gate.mv(t[0][r])) * w.up.mv(t[0][r]));
      }
      rows.push_back(sum);
    }
    return torch::stack(rows);
  };
  compare(ours, plain, inputs);
  check_gradient(ours, inputs);
}

}  // namespace
}  // namespace hadal::train
