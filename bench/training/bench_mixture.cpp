// Routed experts in training, forward and backward with float32 masters and bf16 products: ours beside a loop over the experts and beside
// one dense layer of equal work, both of torch's operations. Each figure is the best of many passes.
//   bench_mixture
#include "train/torch.h"

#include <fmt/format.h>

#include <chrono>
#include <functional>
#include <vector>

#include "train/memory.h"
#include "train/ops.h"
#include "train/parts.h"

namespace hadal::train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct Contest {
  std::function<Tensor()> forward;
  double best = 1e30;
};

// In turns, so that whatever else the machine does meets all alike.
void run(std::vector<Contest>& contests, const std::vector<Tensor>& learnt) {
  const auto begin = Clock::now();
  for (int pass = 0; pass < 10 || seconds_since(begin) < 5; ++pass)
    for (Contest& each : contests) {
      for (const Tensor& t : learnt) t.mutable_grad() = Tensor();
      const auto start = Clock::now();
      each.forward().sum().backward();
      each.best = std::min(each.best, seconds_since(start));
    }
}

Tensor as_bf16(const Tensor& t) { return t.to(torch::kBFloat16); }

Tensor gated(const Tensor& rows, const Mlp<Tensor>& w) {
  return at::linear(at::silu(at::linear(rows, as_bf16(w.gate))) * at::linear(rows, as_bf16(w.up)), as_bf16(w.down));
}

Tensor loop(const Tensor& rows, const Routing& routing, const std::vector<Mlp<Tensor>>& experts) {
  Tensor out = torch::zeros_like(rows, torch::kFloat);
  for (size_t e = 0; e < experts.size(); ++e) {
    const std::vector<Tensor> at = torch::where(routing.expert == int64_t(e));
    const Tensor y = gated(rows.index_select(0, at[0]), experts[e]);
    out = out.index_add(0, at[0], y * routing.weight.index({at[0], at[1]}).unsqueeze(1));
  }
  return out;
}

void experts(int64_t rows, int64_t dim, int64_t width, int64_t count, int64_t active) {
  torch::manual_seed(1);
  const auto matrix = [](int64_t n, int64_t k) { return (torch::randn({n, k}) / std::sqrt(double(k))).requires_grad_(); };
  const auto mlp = [&] { return Mlp<Tensor>{matrix(width, dim), matrix(width, dim), matrix(dim, width)}; };
  std::vector<Mlp<Tensor>> layer;
  for (int64_t e = 0; e < count; ++e) layer.push_back(mlp());
  const Mlp<Tensor> dense = mlp();
  MoeConfig config;
  config.experts = count, config.active = active;
  const Routing routing = choose_experts(torch::randn({rows, count}), config, {});
  const Tensor x = as_bf16(torch::randn({rows, dim})).requires_grad_(), wide = as_bf16(torch::randn({rows * active, dim})).requires_grad_();
  std::vector<Tensor> learnt = {x, wide, dense.gate, dense.up, dense.down};
  for (const Mlp<Tensor>& e : layer) learnt.insert(learnt.end(), {e.gate, e.up, e.down});
  std::vector<Contest> contests = {
      {[&] { return ops::experts(x, routing, layer); }}, {[&] { return loop(x, routing, layer); }}, {[&] { return gated(wide, dense); }}};
  run(contests, learnt);
  const double ours = contests[0].best, operations = 18 * double(rows * active * dim * width);
  fmt::print(
      "{} rows, {} of {} experts, {} -> {}: {:.1f} ms, {:.0f} GFLOP/s; a loop {:.1f} ms, {:.2f} x; one dense layer of equal work {:.1f} "
      "ms, {:.0f} % of its speed\n",
      rows, active, count, dim, width, ours * 1e3, operations / ours / 1e9, contests[1].best * 1e3, contests[1].best / ours,
      contests[2].best * 1e3, 100 * contests[2].best / ours);
}

}  // namespace
}  // namespace hadal::train

int main() {
  hadal::train::keep_freed_memory();
  hadal::train::experts(4096, 192, 96, 64, 6);
  hadal::train::experts(4096, 256, 128, 64, 6);
  hadal::train::experts(4096, 512, 256, 64, 6);
  hadal::train::experts(2048, 1024, 512, 64, 6);
}
