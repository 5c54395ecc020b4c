#include "train/losses.h"

#include <algorithm>

#include "core/error.h"
#include "train/ops.h"
#include "train/ops_common.h"
#include "train/parts.h"

namespace hadal::train {
namespace {

constexpr int64_t logits_at_once = int64_t(1) << 22;
constexpr int64_t rows_together = 64;  // products of any number of rows would each be compiled anew

Tensor padded(const Tensor& rows) {
  const int64_t missing = (rows_together - rows.size(0) % rows_together) % rows_together;
  return missing == 0 ? rows : at::constant_pad_nd(rows, {0, 0, 0, missing});
}

struct ChunkedLoss : torch::autograd::Function<ChunkedLoss> {
  static Tensor forward(ops::Context* context, const Tensor& x, const Tensor& head, int64_t chunk, const LossOfLogits& loss,
                        bool wants_gradient) {
    const auto type = torch::dtype(ops::wide_type(x));
    const Tensor all = x.to(head.scalar_type());
    Tensor dx = torch::empty_like(x), dhead = torch::zeros(head.sizes(), type);
    double sum = 0;
    for (int64_t first = 0; first < x.size(0); first += chunk) {
      const int64_t end = std::min(x.size(0), first + chunk);
      const Tensor rows = padded(all.slice(0, first, end));
      Tensor logits = at::linear(rows, head).slice(0, 0, end - first);
      sum += loss(logits, first);
      if (!wants_gradient) continue;
      const Tensor gradient = padded(logits.to(head.scalar_type()));
      dx.slice(0, first, end).copy_(gradient.matmul(head).slice(0, 0, end - first));
      dhead += gradient.t().matmul(rows);
    }
    if (wants_gradient) context->save_for_backward({dx, dhead.to(head.scalar_type())});
    return torch::scalar_tensor(sum, type);
  }
  static ops::Tensors backward(ops::Context* context, ops::Tensors gradients) {
    const ops::Tensors saved = context->get_saved_variables();
    const auto scaled = [&](const Tensor& t) { return t * gradients[0].to(t.scalar_type()); };
    return {scaled(saved[0]), scaled(saved[1]), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor chunked_loss(const Tensor& x, const Tensor& head, int64_t chunk, const LossOfLogits& loss) {
  CHECK(chunk > 0);
  const bool wants_gradient = torch::GradMode::is_enabled() && (x.requires_grad() || head.requires_grad());
  return ChunkedLoss::apply(x, head, chunk, loss, wants_gradient);
}

Tensor next_token_loss(const Params<Tensor>& params, const Tensor& norm, const Tensor& x, const Tensor& targets, const Tensor& weights,
                       const ModelConfig& config) {
  const Tensor& head = config.tied_head ? params.embed : params.head;
  const Tensor rows = weights.flatten().nonzero().flatten();  // of questions the answers alone count
  const auto of_rows = [&](const Tensor& t) { return t.index_select(0, rows); };
  const Tensor h = rms_norm(of_rows(x.flatten(0, -2)), norm, config.norm_eps, Path::kernels).to(head.scalar_type());
  const ops::LossTerms terms{.targets = of_rows(targets.reshape({-1, 1})), .row_weight = of_rows(weights.flatten())};
  return chunked_loss(h, head, std::max<int64_t>(1, logits_at_once / head.size(0)),
                      [&](Tensor& logits, int64_t first) { return ops::token_loss(logits, terms.of_rows(first, first + logits.size(0))); });
}

}  // namespace hadal::train
