// The feed-forward half of a block: one gated MLP, or routed experts beside a shared one.
#include <algorithm>
#include <utility>

#include "infer/adapter.h"
#include "infer/expert_load.h"
#include "infer/expert_store.h"
#include "infer/parts.h"
#include "infer/route.h"

namespace hadal {
namespace {

class ResidentExperts : public ExpertSource {
 public:
  ResidentExperts(const Moe<Weight>& weights, Profile* profile) : weights_(weights), profile_(profile) {}
  void begin(std::span<const int32_t> experts) override {
    wanted_ = experts;
    if (profile_) profile_->experts += int64_t(experts.size());
  }
  std::vector<ReadyExpert> next() override {
    std::vector<ReadyExpert> all;
    for (const int32_t e : std::exchange(wanted_, {})) {
      const Mlp<Weight>& expert = weights_.experts[size_t(e)];
      all.push_back({e, {expert.gate, expert.up, expert.down}});
    }
    return all;
  }

 private:
  const Moe<Weight>& weights_;
  Profile* profile_;
  std::span<const int32_t> wanted_;
};

// Empty where no row has one.
ExpertAdapters expert_adapters(int64_t layer, const Pass& pass) {
  if (std::ranges::none_of(pass.adapters, [](const AdapterRows& a) { return a.adapter->has_experts; })) return {};
  return [layer, &pass](int64_t row, int32_t expert) -> ExpertLowRank {
    for (const AdapterRows& a : pass.adapters) {
      if (row < a.first || row >= a.first + a.rows || !a.adapter->has_experts) continue;
      const Mlp<LowRank>& w = a.adapter->expert(layer, expert);
      return {w.gate, w.up, w.down};
    }
    return {};
  };
}

void choose(Route& route, Mat<float> logits, const Moe<Weight>& w, int64_t layer, const Pass& pass) {
  const MoeConfig& c = pass.model.config.moe;
  if (layer < c.hash_layers) return hash_experts(route, logits, c, pass.batch.tokens, layer);
  choose_experts(route, logits, c, c.bias ? w.bias.as_f32() : nullptr);
}

}  // namespace

void feed_forward(Mat<float> out, Mat<const float> h, const Mlp<Weight>& w, int64_t, const Pass& pass) {
  const Mat<float> gate = pass.s.gate.rows_from(0, pass.rows).cols_from(0, w.gate.rows);
  const Mat<float> up = pass.s.up.rows_from(0, pass.rows).cols_from(0, w.up.rows);
  project({{gate, w.gate}, {up, w.up}}, h, pass);
  silu_mul(gate, up);
  project({{out, w.down}}, gate, pass);
  pass.lap(Phase::mlp);
}

// The residual stream changes little from layer to layer, so the next layer's router, asked early, mostly names the experts it will name
// in earnest (Eliseev and Mazur, "Fast Inference of Mixture-of-Experts Language Models with Offloading", 2023). Prompts read them all
// anyway.
void look_ahead(Mat<const float> x, int64_t layer, const Pass& pass) {
  constexpr int64_t few_rows = 8;
  const ModelConfig& c = pass.model.config;
  if (!pass.model.experts || pass.rows > few_rows || layer >= c.layers || !c.is_moe(layer)) return;
  const Block<Weight>& block = pass.model.params.blocks[size_t(layer)];
  const auto& w = std::get<Moe<Weight>>(block.ffn);
  const Mat<float> h = pass.s.h.rows_from(0, pass.rows), logits = pass.s.router.rows_from(0, pass.rows);
  rms_norm(h, x, block.ffn_norm, c.norm_eps);
  matmul(logits, h, w.router);
  Route route;
  choose(route, logits, w, layer, pass);
  pass.model.experts->foresee(layer, route.expert);
}

void feed_forward(Mat<float> out, Mat<const float> h, const Moe<Weight>& w, int64_t layer, const Pass& pass) {
  const MoeConfig& c = pass.model.config.moe;
  const Mat<float> logits = pass.s.router.rows_from(0, pass.rows);
  matmul(logits, h, w.router);
  choose(pass.s.route, logits, w, layer, pass);
  if (pass.model.load) pass.model.load->count(layer, pass.s.route.expert);
  if (pass.model.watch_routers) pass.model.watch_routers(layer, logits);  // scores by now
  pass.lap(Phase::router);
  if (c.shared > 0)
    feed_forward(out, h, w.shared, layer, pass);
  else
    for (int64_t r = 0; r < out.rows; ++r) std::fill_n(out.row(r), out.cols, 0.f);
  ResidentExperts resident(w, pass.profile);
  experts(out, h, pass.s.route, pass.model.experts ? pass.model.experts->layer(layer) : resident, pass.s.experts,
          expert_adapters(layer, pass));
  pass.lap(Phase::experts);
}

}  // namespace hadal
