// Losses of distillation: against the same written out in torch, against finite differences, and where the value is known.
#include "train/distill.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include "train/torch.h"

#include <cmath>

#include "core/error.h"
#include "train/logit_cache.h"

namespace hadal::train {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

struct Case {
  Predictions student, teacher;
  Labels labels;
};

Case make_case(int64_t rows, int64_t vocab, torch::ScalarType type, uint64_t seed) {
  torch::manual_seed(int64_t(seed));
  const auto options = torch::dtype(type);
  Case c{{torch::randn({rows, 6}, options), torch::randn({vocab, 6}, options)},
         {torch::randn({rows, 9}, options), torch::randn({vocab, 9}, options)},
         {torch::randint(vocab, {rows}, torch::kLong), torch::rand({rows}) + 0.1}};
  c.student.x.requires_grad_();
  c.student.head.requires_grad_();
  return c;
}

// The definition, with the logits of all rows at once.
Tensor written_out(const Case& c, const TokenLoss& loss) {
  const Tensor student = at::linear(c.student.x, c.student.head), teacher = at::linear(c.teacher.x, c.teacher.head);
  const Tensor log_q = (student / loss.temperature).log_softmax(-1), log_p = (teacher / loss.temperature).log_softmax(-1);
  const Tensor p = log_p.exp(), q = log_q.exp(), log_m = (loss.beta * p + (1 - loss.beta) * q).log();
  const Tensor hard = -student.log_softmax(-1).gather(1, c.labels.ids.unsqueeze(1)).squeeze(1);
  const Tensor forward = (p * (log_p - log_q)).sum(-1), reverse = (q * (log_q - log_p)).sum(-1);
  const Tensor jsd = loss.beta * (p * (log_p - log_m)).sum(-1) + (1 - loss.beta) * (q * (log_q - log_m)).sum(-1);
  const double soft = loss.temperature * loss.temperature;
  const Tensor each = loss.hard * hard + soft * (loss.forward * forward + loss.reverse * reverse + loss.jsd * jsd);
  return (each * c.labels.weights).sum();
}

std::vector<TokenLoss> losses() {
  return {{.hard = 1, .forward = 0},
          {.hard = 0, .forward = 1},
          {.hard = 0, .forward = 0, .reverse = 1},
          {.hard = 0, .forward = 0, .jsd = 1},
          {.hard = 0, .forward = 1, .temperature = 2.5},
          {.hard = 0, .forward = 0, .jsd = 1, .beta = 0.1, .temperature = 0.7},
          {.hard = 0.3, .forward = 0.2, .reverse = 0.4, .jsd = 0.6, .beta = 0.8, .temperature = 1.5}};
}

double difference(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(TokenLossTest, EqualsTheDefinitionInValueAndGradient) {
  for (const TokenLoss& loss : losses())
    for (const int64_t rows : {1, 7, 16, 17})
      for (const int64_t chunk : {1, 5, 256}) {
        Case c = make_case(rows, 31, torch::kDouble, uint64_t(rows));
        const Tensor expected = written_out(c, loss);
        const auto wanted = torch::autograd::grad({expected}, {c.student.x, c.student.head});
        const Tensor found = token_loss(c.student, c.teacher, c.labels, loss, chunk);
        EXPECT_NEAR(found.item<double>(), expected.item<double>(), 1e-9);
        (3 * found).backward();
        EXPECT_LE(difference(c.student.x.grad(), 3 * wanted[0]), 1e-9);
        EXPECT_LE(difference(c.student.head.grad(), 3 * wanted[1]), 1e-9);
      }
}

TEST(TokenLossTest, GradientsEqualFiniteDifferences) {
  constexpr double step = 1e-5;
  for (const TokenLoss& loss : losses()) {
    Case c = make_case(3, 8, torch::kDouble, 5);
    token_loss(c.student, c.teacher, c.labels, loss).backward();
    const torch::NoGradGuard no_grad;
    for (Tensor* t : {&c.student.x, &c.student.head})
      for (int64_t i = 0; i < t->numel(); ++i) {
        Tensor flat = t->view({-1});
        const auto at = [&](double change) {
          flat[i] += change;
          const double value = token_loss(c.student, c.teacher, c.labels, loss).item<double>();
          flat[i] -= change;
          return value;
        };
        EXPECT_NEAR((at(step) - at(-step)) / (2 * step), t->grad().view({-1})[i].item<double>(), 1e-8);
      }
  }
}

TEST(TokenLossTest, IsCloseInFloatAndBfloat16) {
  for (const TokenLoss& loss : losses()) {
    Case c = make_case(17, 127, torch::kFloat, 2);
    const Tensor expected = written_out(c, loss);
    EXPECT_NEAR(token_loss(c.student, c.teacher, c.labels, loss, 4).item<double>(), expected.item<double>(), 1e-3);
    Predictions half{c.student.x, c.student.head.detach().to(torch::kBFloat16).requires_grad_()};
    const Tensor found = token_loss(half, c.teacher, c.labels, loss, 4);
    EXPECT_NEAR(found.item<double>(), expected.item<double>(), 0.05 * (1 + std::abs(expected.item<double>())));
    found.backward();
    EXPECT_EQ(half.head.grad().scalar_type(), torch::kBFloat16);
  }
}

// Two tokens: teacher 1/2, 1/2; student e^1 : 1.
TEST(TokenLossTest, HasTheValuesThatAreKnown) {
  Case c;
  c.student = {torch::ones({1, 1}, torch::kDouble), torch::tensor({{1.}, {0.}}, torch::kDouble)};
  c.teacher = {torch::zeros({1, 1}, torch::kDouble), torch::tensor({{1.}, {0.}}, torch::kDouble)};
  c.labels = {torch::zeros({1}, torch::kLong), torch::ones({1})};
  const double q = std::exp(1) / (1 + std::exp(1)), m = (0.5 + q) / 2;
  const auto kl = [](double a, double b) { return a * std::log(a / b) + (1 - a) * std::log((1 - a) / (1 - b)); };
  const auto found = [&](const TokenLoss& loss) { return token_loss(c.student, c.teacher, c.labels, loss).item<double>(); };
  EXPECT_NEAR(found({.hard = 2, .forward = 0}), -2 * std::log(q), 1e-12);
  EXPECT_NEAR(found({.hard = 0, .forward = 1}), kl(0.5, q), 1e-12);
  EXPECT_NEAR(found({.hard = 0, .forward = 0, .reverse = 1}), kl(q, 0.5), 1e-12);
  EXPECT_NEAR(found({.hard = 0, .forward = 0, .jsd = 1}), 0.5 * kl(0.5, m) + 0.5 * kl(q, m), 1e-12);
  c.teacher = c.student;
  EXPECT_NEAR(found({.hard = 0, .forward = 1, .reverse = 1, .jsd = 1}), 0, 1e-12);
}

TEST(DistillConfigTest, SaysWhatDoesNotGoTogether) {
  const auto error = [](DistillConfig config) {
    try {
      config.check();
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("none");
  };
  EXPECT_EQ(error({}), "none");
  EXPECT_EQ(error({.cache = "file"}), "none");
  EXPECT_THAT(error({.loss = {.jsd = 1}, .cache = "file"}), HasSubstr("expected forward and hard losses only"));
  EXPECT_THAT(error({.loss = {.temperature = 2}, .cache = "file"}), HasSubstr("samples of temperature 1: expected no other, found 2"));
  EXPECT_THAT(error({.cache = "file", .hidden = {{}}}), HasSubstr("no hidden states"));
  EXPECT_THAT(error({.on_policy = 2}), HasSubstr("distill.on_policy is 2"));
}

TEST(TokenLossTest, SaysWhatIsOutOfRange) {
  EXPECT_THAT(([] { TokenLoss{.hard = -1}.check(); }), ThrowsMessage<Error>(HasSubstr("distill.hard is -1")));
  EXPECT_THAT(([] { TokenLoss{.hard = 0, .forward = 0}.check(); }), ThrowsMessage<Error>(HasSubstr("a loss with a share above 0")));
  EXPECT_THAT(([] { TokenLoss{.beta = 1}.check(); }), ThrowsMessage<Error>(HasSubstr("distill.beta is 1")));
  EXPECT_THAT(([] { TokenLoss{.temperature = 0}.check(); }), ThrowsMessage<Error>(HasSubstr("distill.temperature is 0")));
}

SampledTeacher sampled(const Case& c, uint64_t seed) {
  const Tensor logits = at::linear(c.teacher.x, c.teacher.head).to(torch::kFloat).contiguous();
  const int64_t rows = logits.size(0), vocab = logits.size(1);
  SampledTeacher teacher{torch::empty({rows, cached_ids}, torch::kLong), torch::empty({rows, cached_ids}), torch::empty({rows})};
  for (int64_t r = 0; r < rows; ++r) {
    const LogitSample s = sample_logits({logits.data_ptr<float>() + r * vocab, size_t(vocab)}, seed * 1000 + uint64_t(r));
    teacher.entropy[r] = s.entropy;
    for (int64_t i = 0; i < cached_ids; ++i) {
      teacher.ids[r][i] = s.ids[size_t(i)];
      teacher.probabilities[r][i] = float(s.counts[size_t(i)]) / cached_draws;
    }
  }
  return teacher;
}

// Twelve ids of 200 in each sampling; their gradients' mean is that of the whole distribution.
TEST(SampledTeacherTest, LossAndGradientHaveNoBias) {
  constexpr int samplings = 400;
  const TokenLoss loss{.hard = 0.3, .forward = 0.7};
  Case c = make_case(3, 200, torch::kDouble, 11);
  c.teacher.x = c.teacher.x.detach() * 0.4;  // flat: most of its tokens are left out each time
  const Tensor whole = token_loss(c.student, c.teacher, c.labels, loss);
  const Tensor expected = torch::autograd::grad({whole}, {c.student.x})[0];
  double mean = 0;
  std::vector<Tensor> gradients;
  for (int i = 0; i < samplings; ++i) {
    const Tensor found = token_loss(c.student, sampled(c, uint64_t(i)), c.labels, loss);
    mean += found.item<double>() / samplings;
    gradients.push_back(torch::autograd::grad({found}, {c.student.x})[0]);
  }
  const Tensor all = torch::stack(gradients), error = all.std(0) / std::sqrt(double(samplings));
  EXPECT_GT(all.std(0).min().item<double>(), 0.003) << "the sampling does not vary: this test shows nothing";
  EXPECT_LE(((all.mean(0) - expected).abs() / error).max().item<double>(), 4.5);
  EXPECT_NEAR(mean, whole.item<double>(), 0.05);
}

ModelConfig shape(int64_t dim, int64_t layers) {
  ModelConfig config;
  config.dim = dim;
  config.layers = layers;
  return config;
}

TEST(HiddenLossTest, IsZeroForStatesThatAProjectionMakesEqual) {
  for (const auto kind : {HiddenPair::Kind::mse, HiddenPair::Kind::cosine}) {
    const HiddenLoss loss({{kind, 1, 0}}, shape(8, 2), shape(4, 1), 3);
    const Tensor own = torch::randn({2, 5, 4}), rows = torch::arange(10);
    const Tensor wanted = at::linear(own, loss.projections()[0]).detach();
    EXPECT_NEAR(loss({torch::zeros({2, 5, 8}), 7 * wanted}, {own}, rows).item<double>(), 0, 1e-5);
    const double opposite = loss({torch::zeros({2, 5, 8}), -wanted}, {own}, rows).item<double>();
    EXPECT_NEAR(opposite, kind == HiddenPair::Kind::mse ? 4 : 2, 1e-4);  // mse of unit mean square, turned round: (2 x)^2
  }
}

TEST(HiddenLossTest, TeachesStudentAndProjectionButNotTheTeacher) {
  constexpr double step = 1e-3;
  for (const auto kind : {HiddenPair::Kind::mse, HiddenPair::Kind::cosine}) {
    const HiddenLoss loss({{kind, 0, 0, 2.}}, shape(6, 1), shape(3, 1), 3);
    torch::manual_seed(1);
    const Tensor teacher = torch::randn({1, 4, 6}).requires_grad_(), student = torch::randn({1, 4, 3}).requires_grad_();
    const Tensor rows = torch::tensor({0, 2}, torch::kLong), projection = loss.projections()[0];
    loss({teacher}, {student}, rows).backward();
    EXPECT_FALSE(teacher.grad().defined());
    EXPECT_EQ(student.grad()[0][1].abs().max().item<double>(), 0) << "a row that was not named";
    const torch::NoGradGuard no_grad;
    for (const Tensor& t : {student, projection})
      for (int64_t i = 0; i < t.numel(); ++i) {
        Tensor flat = t.view({-1});
        const auto at = [&](double change) {
          flat[i] += change;
          const double value = loss({teacher}, {student}, rows).item<double>();
          flat[i] -= change;
          return value;
        };
        EXPECT_NEAR((at(step) - at(-step)) / (2 * step), t.grad().view({-1})[i].item<double>(), 2e-3);
      }
  }
}

TEST(HiddenLossTest, NamesALayerThatIsNotThere) {
  EXPECT_THAT(
      [] {
        HiddenLoss({{{}, 2, 0}}, shape(8, 2), shape(4, 1), 3);
      },
      ThrowsMessage<Error>(HasSubstr("layer 2 of the teacher is out of range: expected 0 to 1")));
  EXPECT_THAT([] { HiddenLoss({{{}, 0, 1}}, shape(8, 2), shape(4, 1), 3); }, ThrowsMessage<Error>(HasSubstr("layer 1 of the student")));
}

}  // namespace
}  // namespace hadal::train
