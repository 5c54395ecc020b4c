// The feed-forward half of a block: one gated MLP, or routed experts beside a shared one.
#include "train/torch.h"

#include "train/ops.h"
#include "train/parts.h"
#include "train/ranks.h"

namespace hadal::train {
namespace {

struct Attached : torch::autograd::Function<Attached> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x, const Tensor& loss) {
    context->saved_data["type"] = loss.scalar_type();
    return x.view_as(x);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    return {gradients[0], torch::ones({}, context->saved_data["type"].toScalarType())};
  }
};

Tensor gated(const Tensor& h, const Mlp<Tensor>& w, Path path) {
  const Tensor gate = project(h, w.gate), up = project(h, w.up);
  return project(path == Path::kernels ? ops::swiglu(gate, up) : at::silu(gate) * up, w.down);
}

// One expert after the other: the rows that chose it, weighed, added where they came from. rows [n, dim]. An expert without rows gets a
// gradient of zero, as any parameter does that had nothing to do: optimizers and all-reduces find all of them.
Tensor routed(const Tensor& rows, const Routing& routing, const std::vector<Mlp<Tensor>>& experts) {
  Tensor out = torch::zeros_like(rows, routing.weight.scalar_type());
  for (size_t e = 0; e < experts.size(); ++e) {
    const std::vector<Tensor> at = torch::where(routing.expert == int64_t(e));
    const Tensor y = gated(rows.index_select(0, at[0]), experts[e], Path::algebra).to(out.scalar_type());
    out = out.index_add(0, at[0], y * routing.weight.index({at[0], at[1]}).unsqueeze(1));
  }
  return out.to(rows.scalar_type());
}

}  // namespace

Tensor attach(const Tensor& x, const Tensor& loss) { return Attached::apply(x, loss); }

Tensor feed_forward(const Tensor& h, const Mlp<Tensor>& w, int64_t, const Rows& rows) { return gated(h, w, rows.pass.path); }

Tensor feed_forward(const Tensor& h, const Moe<Tensor>& w, int64_t layer, const Rows& rows) {
  const Tensor flat = h.flatten(0, 1), wide = flat.to(w.router.scalar_type());
  Routing routing = route(at::linear(wide, w.router), w.bias, layer, rows);
  routing.sequences = h.size(0);
  if (rows.pass.trace.routings)
    rows.pass.trace.routings->push_back(
        {routing.logits.detach(), routing.scores.detach(), routing.expert.detach(), routing.weight.detach(), routing.sequences});
  const bool by_kernels = rows.pass.path == Path::kernels && !rows.pass.config.moe.expert_choice;  // which has rows without experts
  // The experts' matrices stay in the wide type: what the kernels read is packed from them anyway.
  Tensor out = rows.pass.divided ? divided_experts(flat.to(rows.products), routing, w.experts, *rows.pass.divided)
               : by_kernels      ? ops::experts(flat.to(rows.products), routing, w.experts)
                                 : routed(flat, routing, w.experts);
  if (rows.pass.config.moe.shared > 0) out = out + gated(flat, w.shared, rows.pass.path);
  if (rows.pass.balance) out = attach(out, rows.pass.balance(routing, layer));
  return out.view_as(h);
}

}  // namespace hadal::train
