// The feed-forward half of a block: one gated MLP, or routed experts beside a shared one.
#include <algorithm>

#include "infer/parts.h"
#include "infer/route.h"

namespace hadal {

void feed_forward(Mat<float> out, Mat<const float> h, const Mlp<Weight>& w, const Pass& pass) {
  const Mat<float> gate = pass.s.gate.rows_from(0, pass.rows).cols_from(0, w.gate.rows);
  const Mat<float> up = pass.s.up.rows_from(0, pass.rows).cols_from(0, w.up.rows);
  matmul(gate, h, w.gate);
  matmul(up, h, w.up);
  silu_mul(gate, up);
  matmul(out, gate, w.down);
  pass.lap(Phase::mlp);
}

void feed_forward(Mat<float> out, Mat<const float> h, const Moe<Weight>& w, const Pass& pass) {
  const MoeConfig& c = pass.model.config.moe;
  const Mat<float> logits = pass.s.router.rows_from(0, pass.rows);
  matmul(logits, h, w.router);
  choose_experts(pass.s.route, logits, c, c.bias ? w.bias.as_f32() : nullptr);
  pass.lap(Phase::router);
  if (c.shared > 0)
    feed_forward(out, h, w.shared, pass);
  else
    for (int64_t r = 0; r < out.rows; ++r) std::fill_n(out.row(r), out.cols, 0.f);
  const auto weights_of = [&](int32_t e) {
    if (pass.profile) ++pass.profile->experts;
    const Mlp<Weight>& expert = w.experts[size_t(e)];
    return ExpertWeights{expert.gate, expert.up, expert.down};
  };
  experts(out, h, pass.s.route, weights_of, pass.s.experts);
  pass.lap(Phase::experts);
}

}  // namespace hadal
