#include "train/distill.h"

#include "train/torch.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "kernels/training.h"
#include "train/parts.h"

namespace hadal::train {
namespace {

struct Task {
  Predictions teacher;  // x undefined: none
  Tensor ids, shares;   // int64 [rows, n], and each one's part in the cross entropy [rows, n]
  Tensor weights;       // [rows]
  TokenLoss loss;
  int64_t chunk;
  bool wants_gradient = false;
};

double soft_scale(const TokenLoss& loss) { return loss.temperature * loss.temperature; }

// The summed loss of the chunk that begins at row `first`; its logits [rows, vocab] become their gradient.
template <class T>
double lose(const Tensor& logits, const Tensor& teacher, const Task& task, int64_t first) {
  const TokenLoss& loss = task.loss;
  const int64_t rows = logits.size(0), vocab = logits.size(1), labels = task.ids.size(1);
  const Tensor losses = torch::empty({rows, 4}, logits.options());
  TokenLossArgs<T> args{};
  args.logits = logits.data_ptr<T>();
  args.teacher = teacher.defined() ? teacher.data_ptr<T>() : nullptr;
  args.target = task.ids.data_ptr<int64_t>() + first * labels;
  args.target_weight = task.shares.data_ptr<T>() + first * labels;
  args.row_weight = task.weights.data_ptr<T>() + first;
  args.loss = losses.data_ptr<T>();
  args.vocab = args.ld = args.ld_teacher = vocab;
  args.targets = labels;
  args.share[0] = 1;
  if (teacher.defined()) {
    args.share[1] = T(soft_scale(loss) * loss.forward);
    args.share[2] = T(soft_scale(loss) * loss.reverse);
    args.share[3] = T(soft_scale(loss) * loss.jsd);
  }
  args.beta = T(loss.beta);
  args.temperature = T(loss.temperature);
  const auto& kernels = training_kernels().of<T>();
  at::parallel_for(0, rows, 4, [&](int64_t from, int64_t to) { kernels.token_loss(args, from, to); });
  double sum = 0;
  for (int64_t row = 0; row < rows; ++row)
    for (int i = 0; i < 4; ++i) sum += double(args.row_weight[row]) * double(args.share[i]) * double(args.loss[row * 4 + i]);
  return sum;
}

// The way forward computes the gradients too, so that the logits of a chunk are there only once.
struct ChunkedLoss : torch::autograd::Function<ChunkedLoss> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x, const Tensor& head, const Task* task) {
    const auto type = task->weights.scalar_type();
    const Tensor rows = x.to(head.scalar_type());
    Tensor dx = torch::empty_like(x), dhead = torch::zeros(head.sizes(), torch::dtype(type));
    double sum = 0;
    for (int64_t first = 0; first < x.size(0); first += task->chunk) {
      const int64_t end = std::min(x.size(0), first + task->chunk);
      const Tensor part = rows.slice(0, first, end), logits = at::linear(part, head).to(type);
      Tensor teacher;
      if (task->teacher.x.defined()) teacher = project(task->teacher.x.slice(0, first, end), task->teacher.head).to(type);
      sum += type == torch::kDouble ? lose<double>(logits, teacher, *task, first) : lose<float>(logits, teacher, *task, first);
      if (!task->wants_gradient) continue;
      const Tensor gradient = logits.to(head.scalar_type());
      dx.slice(0, first, end).copy_(at::matmul(gradient, head));
      dhead += at::matmul(gradient.t(), part);
    }
    if (task->wants_gradient) context->save_for_backward({dx, dhead.to(head.scalar_type())});
    return torch::scalar_tensor(sum, torch::dtype(type));
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    return {saved[0] * gradients[0].to(saved[0].scalar_type()), saved[1] * gradients[0].to(saved[1].scalar_type()), Tensor()};
  }
};

torch::ScalarType type_of_losses(const Predictions& student) {
  return student.x.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
}

Tensor run(const Predictions& student, Task task) {
  CHECK(task.chunk > 0 && task.ids.size(0) == student.x.size(0));
  const auto type = type_of_losses(student);
  task.ids = task.ids.contiguous();
  task.shares = task.shares.to(type).contiguous();
  task.weights = task.weights.to(type).contiguous();
  task.wants_gradient = torch::GradMode::is_enabled() && (student.x.requires_grad() || student.head.requires_grad());
  return ChunkedLoss::apply(student.x, student.head, &task);
}

Tensor unit(const Tensor& x) { return x * torch::rsqrt(x.square().mean(-1, true) + 1e-6); }

}  // namespace

Predictions predictions(const Params<Tensor>& params, const Tensor& x, const Tensor& rows, const Pass& pass) {
  const Tensor chosen = x.flatten(0, 1).index_select(0, rows);
  return {rms_norm(chosen, params.norm, pass.config.norm_eps, pass.path), pass.config.tied_head ? params.embed : params.head};
}

Tensor token_loss(const Predictions& student, const Predictions& teacher, const Labels& labels, const TokenLoss& loss, int64_t chunk) {
  CHECK(!loss.needs_teacher() || (teacher.x.size(0) == student.x.size(0) && teacher.head.size(0) == student.head.size(0)));
  const Tensor shares = torch::full({labels.ids.size(0), 1}, loss.hard, torch::kDouble);
  return run(student, {loss.needs_teacher() ? teacher : Predictions{}, labels.ids.unsqueeze(1), shares, labels.weights, loss, chunk});
}

// A cross entropy with several labels, each with its share: the label's, and the samples' by their probability. The entropy, which has no
// gradient, makes it a divergence.
Tensor token_loss(const Predictions& student, const SampledTeacher& teacher, const Labels& labels, const TokenLoss& loss, int64_t chunk) {
  CHECK(loss.reverse == 0 && loss.jsd == 0 && loss.temperature == 1);
  const Tensor hard = torch::full({labels.ids.size(0), 1}, loss.hard);
  const Tensor ids = torch::cat({labels.ids.unsqueeze(1), teacher.ids}, 1);
  const Tensor shares = torch::cat({hard, teacher.probabilities * loss.forward}, 1);
  const Tensor entropy = (teacher.entropy * labels.weights).sum();
  return run(student, {{}, ids, shares, labels.weights, loss, chunk}) - loss.forward * entropy;
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
