#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "train/torch.h"

namespace hadal::train {
namespace {

std::vector<Tensor> gradients(const std::vector<Tensor>& params) {
  std::vector<Tensor> all;
  for (const Tensor& p : params)
    if (p.grad().defined()) all.push_back(p.grad());
  return all;
}

}  // namespace

Optimizer::Optimizer(std::vector<NamedTensor> params, const OptimizerConfig& config, torch::ScalarType products)
    : config_(config), products_(products) {
  decayed_.decay = config.decay;
  for (NamedTensor& p : params) {
    if (!p.tensor.requires_grad()) continue;
    if (config.kind == "muon" && p.role == Role::matrix && p.name != "lm_head.weight") {
      matrices_.push_back({p.name, p.tensor, torch::zeros_like(p.tensor, torch::requires_grad(false))});
      continue;
    }
    Group& group = p.role == Role::matrix || p.role == Role::embedding || p.role == Role::router ? decayed_ : kept_;
    group.names.push_back(p.name);
    group.params.push_back(p.tensor);
    group.first.push_back(torch::zeros_like(p.tensor, torch::requires_grad(false)));
    group.second.push_back(torch::zeros_like(p.tensor, torch::requires_grad(false)));
    group.steps.push_back(torch::zeros({}, torch::kFloat));
  }
}

void Optimizer::step(double rate_share) {
  const torch::NoGradGuard no_grad;
  step_adam(decayed_, config_.learning_rate * rate_share);
  step_adam(kept_, config_.learning_rate * rate_share);
  step_muon(config_.muon_rate * rate_share);
}

void Optimizer::step_adam(Group& group, double rate) {
  std::vector<Tensor> params, gradients, first, second, steps;
  for (size_t i = 0; i < group.params.size(); ++i) {
    if (!group.params[i].grad().defined()) continue;  // an expert that no row chose
    params.push_back(group.params[i]);
    gradients.push_back(group.params[i].grad());
    first.push_back(group.first[i]);
    second.push_back(group.second[i]);
    steps.push_back(group.steps[i].add_(1));
  }
  if (params.empty()) return;
  at::_fused_adamw_(params, gradients, first, second, {}, steps, rate, config_.beta1, config_.beta2, group.decay, config_.epsilon,
                    /*amsgrad=*/false, /*maximize=*/false);
}

// Matrices of one shape are made orthogonal together.
void Optimizer::step_muon(double rate) {
  std::map<std::vector<int64_t>, std::vector<Momentum*>> shapes;
  for (Momentum& m : matrices_)
    if (m.param.grad().defined()) shapes[m.param.sizes().vec()].push_back(&m);
  for (const auto& [shape, group] : shapes) {
    std::vector<Tensor> directions;
    for (Momentum* m : group) {
      m->average.mul_(config_.muon_momentum).add_(m->param.grad());
      directions.push_back(m->param.grad() + m->average * config_.muon_momentum);
    }
    const Tensor updates = orthogonal(torch::stack(directions), products_);
    const double scale = std::sqrt(std::max(1., double(shape[0]) / double(shape[1])));
    for (size_t i = 0; i < group.size(); ++i) group[i]->param.mul_(1 - rate * config_.decay).add_(updates[int64_t(i)], -rate * scale);
  }
}

void Optimizer::zero_gradients() {
  for (Group* group : {&decayed_, &kept_})
    for (Tensor& p : group->params) p.mutable_grad() = Tensor();
  for (Momentum& m : matrices_) m.param.mutable_grad() = Tensor();
}

std::vector<NamedTensor> Optimizer::state() {
  std::vector<NamedTensor> all;
  for (Group* group : {&decayed_, &kept_})
    for (size_t i = 0; i < group->params.size(); ++i) {
      all.push_back({group->names[i] + ".first", Role::matrix, group->first[i]});
      all.push_back({group->names[i] + ".second", Role::matrix, group->second[i]});
      all.push_back({group->names[i] + ".steps", Role::bias, group->steps[i]});
    }
  for (Momentum& m : matrices_) all.push_back({m.name + ".momentum", Role::matrix, m.average});
  return all;
}

double gradient_norm(const std::vector<Tensor>& params) {
  const std::vector<Tensor> all = gradients(params);
  return all.empty() ? 0 : torch::stack(at::_foreach_norm(all)).norm().item<double>();
}

void clip_gradients(const std::vector<Tensor>& params, double norm, double most) {
  if (most > 0 && norm > most && std::isfinite(norm)) at::_foreach_mul_(gradients(params), most / norm);
}

Tensor orthogonal(const Tensor& x, torch::ScalarType products) {
  const bool tall = x.size(-2) > x.size(-1);
  Tensor y = (tall ? x.mT() : x).to(torch::kFloat);
  y = (y / (y.norm(2, {-2, -1}, true) + 1e-7)).to(products);
  for (int step = 0; step < 5; ++step) {
    const Tensor a = y.matmul(y.mT());
    y = 3.4445 * y + (-4.7750 * a + 2.0315 * a.matmul(a)).matmul(y);
  }
  return (tall ? y.mT() : y).to(torch::kFloat);
}

}  // namespace hadal::train
