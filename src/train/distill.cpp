#include "train/distill.h"

#include "train/torch.h"

#include <cmath>
#include <utility>

#include "core/error.h"
#include "train/losses.h"
#include "train/ops.h"
#include "train/ops_common.h"
#include "train/parts.h"

namespace hadal::train {
namespace {

// teacher.x undefined: there is none.
Tensor loss_of(const Predictions& student, const Predictions& teacher, ops::LossTerms terms, int64_t chunk) {
  CHECK(terms.targets.size(0) == student.x.size(0));
  const auto type = ops::wide_type(student.x);
  terms.targets = terms.targets.contiguous();
  terms.target_weight = terms.target_weight.to(type).contiguous();
  terms.row_weight = terms.row_weight.to(type).contiguous();
  return chunked_loss(student.x, student.head, chunk, [&](Tensor& logits, int64_t first) {
    const int64_t end = first + logits.size(0);
    ops::LossTerms part = terms.of_rows(first, end);
    if (teacher.x.defined()) part.teacher = project(teacher.x.slice(0, first, end), teacher.head).to(type);
    logits = logits.to(type);
    return ops::token_loss(logits, part);
  });
}

Tensor unit(const Tensor& x) { return x * torch::rsqrt(x.square().mean(-1, true) + 1e-6); }

}  // namespace

Predictions predictions(const Params<Tensor>& params, const Tensor& x, const Tensor& rows, const Pass& pass) {
  const Tensor chosen = x.flatten(0, 1).index_select(0, rows);
  return {rms_norm(chosen, params.norm, pass.config.norm_eps, pass.path), pass.config.tied_head ? params.embed : params.head};
}

Tensor token_loss(const Predictions& student, const Predictions& teacher, const Labels& labels, const TokenLoss& loss, int64_t chunk) {
  CHECK(!loss.needs_teacher() || (teacher.x.size(0) == student.x.size(0) && teacher.head.size(0) == student.head.size(0)));
  const Tensor hard = torch::full({labels.ids.size(0), 1}, loss.hard, torch::kDouble);
  return loss_of(student, loss.needs_teacher() ? teacher : Predictions{},
                 {.targets = labels.ids.unsqueeze(1), .target_weight = hard, .row_weight = labels.weights, .divergence = loss}, chunk);
}

// A cross entropy with several labels, each with its share: the label's, and the samples' by their probability. The entropy, which has no
// gradient, makes it a divergence.
Tensor token_loss(const Predictions& student, const SampledTeacher& teacher, const Labels& labels, const TokenLoss& loss, int64_t chunk) {
  CHECK(loss.reverse == 0 && loss.jsd == 0 && loss.temperature == 1);
  const Tensor hard = torch::full({labels.ids.size(0), 1}, loss.hard);
  const Tensor ids = torch::cat({labels.ids.unsqueeze(1), teacher.ids}, 1);
  const Tensor shares = torch::cat({hard, teacher.probabilities * loss.forward}, 1);
  const Tensor entropy = (teacher.entropy * labels.weights).sum();
  return loss_of(student, {}, {.targets = ids, .target_weight = shares, .row_weight = labels.weights}, chunk) - loss.forward * entropy;
}

HiddenLoss::HiddenLoss(std::vector<HiddenPair> pairs, const ModelConfig& teacher, const ModelConfig& student, uint64_t seed)
    : pairs_(std::move(pairs)) {
  const auto need = [](int64_t layer, const ModelConfig& config, const char* whose) {
    if (layer < 0 || layer >= config.layers)
      throw Error("distill.hidden: layer {} of the {} is out of range: expected 0 to {}", layer, whose, config.layers - 1);
  };
  torch::Generator generator = at::detail::createCPUGenerator(seed);
  for (const HiddenPair& pair : pairs_) {
    need(pair.teacher_layer, teacher, "teacher");
    need(pair.student_layer, student, "student");
    projections_.push_back((torch::randn({teacher.dim, student.dim}, generator) / std::sqrt(double(student.dim))).requires_grad_());
  }
}

Tensor HiddenLoss::operator()(const std::vector<Tensor>& teacher, const std::vector<Tensor>& student, const Tensor& rows) const {
  Tensor sum = torch::zeros({});
  for (size_t i = 0; i < pairs_.size(); ++i) {
    const HiddenPair& pair = pairs_[i];
    const Tensor wanted = teacher[size_t(pair.teacher_layer)].detach().flatten(0, 1).index_select(0, rows);
    const Tensor own = student[size_t(pair.student_layer)].flatten(0, 1).index_select(0, rows);
    const Tensor mapped = at::linear(own.to(projections_[i].scalar_type()), projections_[i]);
    const Tensor loss = pair.kind == HiddenPair::Kind::mse ? (unit(mapped) - unit(wanted)).square().mean()
                                                           : 1 - at::cosine_similarity(mapped, wanted, -1).mean();
    sum = sum + pair.weight * loss;
  }
  return sum;
}

}  // namespace hadal::train
