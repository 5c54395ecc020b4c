#include "train/losses.h"

#include <algorithm>

#include "train/ops.h"
#include "train/parts.h"

namespace hadal::train {
namespace {

constexpr int64_t logits_at_once = int64_t(1) << 22;

// h [rows, dim], w [vocab, dim]
struct HeadLoss : torch::autograd::Function<HeadLoss> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& h, const Tensor& w, const Tensor& targets,
                        const Tensor& weights) {
    const int64_t chunk = std::max<int64_t>(1, logits_at_once / w.size(0));
    Tensor loss = torch::zeros({}, weights.options());
    Tensor dh = torch::empty_like(h), dw = torch::zeros(w.sizes(), weights.options());
    for (int64_t first = 0; first < h.size(0); first += chunk) {
      const int64_t end = std::min(h.size(0), first + chunk);
      const Tensor rows = h.slice(0, first, end), weight = weights.slice(0, first, end).contiguous();
      Tensor dlogits = at::linear(rows, w);
      loss += ops::token_loss(dlogits, targets.slice(0, first, end).contiguous(), weight).dot(weight);
      dh.slice(0, first, end).copy_(dlogits.matmul(w));
      dw += dlogits.t().matmul(rows);
    }
    context->save_for_backward({dh, dw.to(w.scalar_type())});
    return loss;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const Tensor scale = gradients[0].to(saved[0].scalar_type());
    return {saved[0] * scale, saved[1] * scale, Tensor(), Tensor()};
  }
};

}  // namespace

Tensor next_token_loss(const Params<Tensor>& params, const Tensor& x, const Tensor& targets, const Tensor& weights,
                       const ModelConfig& config) {
  const Tensor& w = config.tied_head ? params.embed : params.head;
  const Tensor h = rms_norm(x, params.norm, config.norm_eps, Path::kernels).flatten(0, -2).to(w.scalar_type());
  return HeadLoss::apply(h, w, targets.flatten(), weights.flatten());
}

}  // namespace hadal::train
