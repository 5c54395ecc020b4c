#include "train/forward.h"

#include "train/torch.h"

#include <cmath>
#include <functional>
#include <memory>

#include "core/error.h"
#include "train/ops.h"
#include "train/parts.h"

namespace hadal::train {
namespace {

// The angle is rounded to float before its cosine is taken, as the published code and the engine do.
Rope rope_of(const ModelConfig& config, int64_t position, int64_t time) {
  const std::vector<float> frequencies = rope_frequencies(config);
  const int64_t pairs = int64_t(frequencies.size());
  Tensor cos = torch::empty({time, pairs}), sin = torch::empty({time, pairs});
  for (int64_t t = 0; t < time; ++t)
    for (int64_t i = 0; i < pairs; ++i) {
      const float angle = float(position + t) * frequencies[size_t(i)];
      cos.data_ptr<float>()[t * pairs + i] = float(std::cos(double(angle))) * config.rope.magnitude;
      sin.data_ptr<float>()[t * pairs + i] = float(std::sin(double(angle))) * config.rope.magnitude;
    }
  return {cos, sin, config.rope.layout == RopeLayout::pairs};
}

Rows rows_of(const Pass& pass, const Tensor& tokens, torch::ScalarType products) {
  const int64_t time = tokens.size(1);
  const Memory* memory = pass.memory;
  const int64_t position = memory ? memory->position : 0;
  Rows rows{pass, products, rope_of(pass.config, position, time), torch::arange(position, position + time), {}, {}, tokens};
  rows.key_position = rows.position;
  if (memory && !memory->positions.empty()) {
    rows.key_position = torch::cat({torch::tensor(memory->positions), rows.position});
    rows.past = memory->layers;
  }
  return rows;
}

// Of the rows that the layers have left there: the first `sinks` and the last `rows` stay.
void trim(Memory& memory, const Rows& rows) {
  const Tensor age = rows.key_position.numel() - torch::arange(rows.key_position.numel());
  const Tensor kept = ((age <= memory.rows) | (rows.key_position < memory.sinks)).nonzero().squeeze(1);
  for (Memory::Layer& layer : memory.layers)
    for (Tensor* t : {&layer.keys, &layer.values, &layer.index_keys})
      if (t->defined()) *t = t->index_select(1, kept);
  const Tensor positions = rows.key_position.index_select(0, kept);
  memory.positions.assign(positions.data_ptr<int64_t>(), positions.data_ptr<int64_t>() + positions.numel());
  memory.position += rows.position.numel();
}

Tensor run_block(const Tensor& x, const Block<Tensor>& block, int64_t layer, const Rows& rows) {
  const double eps = rows.pass.config.norm_eps;
  const Tensor h =
      x +
      std::visit([&](const auto& w) { return attention(rms_norm(x, block.attn_norm, eps, rows.pass.path), w, layer, rows); }, block.attn);
  return h + std::visit([&](const auto& w) { return feed_forward(rms_norm(h, block.ffn_norm, eps, rows.pass.path), w, layer, rows); },
                        block.ffn);
}

// Keeps only its input; the way back runs the block again. Parameters get their gradients from that second run.
struct Recomputed : torch::autograd::Function<Recomputed> {
  using Run = std::function<Tensor(const Tensor&)>;
  struct Holder : torch::CustomClassHolder {
    explicit Holder(Run r) : run(std::move(r)) {}
    Run run;
  };
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x, const Run& first, const Run& again) {
    context->save_for_backward({x});
    context->saved_data["again"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(again));
    return first(x);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    const Tensor x = context->get_saved_variables()[0].detach().requires_grad_();
    const torch::AutoGradMode with_gradients(true);
    const Tensor y = c10::static_intrusive_pointer_cast<Holder>(context->saved_data["again"].toCapsule())->run(x);
    torch::autograd::backward({y}, {gradients[0]});
    return {x.grad(), Tensor(), Tensor()};
  }
};

// What the way back runs blocks with, without effects. It may come when the caller's configuration is gone.
struct Again {
  explicit Again(const Rows& r)
      : config(r.pass.config),
        rows{{.config = config,
              .path = r.pass.path,
              .balance = r.pass.balance,
              .indexer_weight = r.pass.indexer_weight,
              .divided = r.pass.divided},
             r.products,
             r.rope,
             r.position,
             r.key_position,
             r.past,
             r.tokens} {}
  Again(const Again&) = delete;
  const ModelConfig config;
  const Rows rows;
};

Tensor run_recomputed(const Tensor& x, const Block<Tensor>& block, int64_t layer, const Rows& rows,
                      const std::shared_ptr<const Again>& again) {
  const auto kept = std::make_shared<const Block<Tensor>>(block);  // handles: the parameters' owner may be gone as well
  return Recomputed::apply(x, Recomputed::Run([&](const Tensor& in) { return run_block(in, block, layer, rows); }),
                           Recomputed::Run([kept, layer, again](const Tensor& in) { return run_block(in, *kept, layer, again->rows); }));
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, Path path) {
  if (path == Path::kernels) return ops::rms_norm(x, weight, eps);
  const Tensor wide = x.to(weight.scalar_type());
  return (wide * torch::rsqrt(wide.square().mean(-1, true) + eps) * weight).to(x.scalar_type());
}

Tensor rotate(const Tensor& x, const Rope& rope, Path path) {
  if (path == Path::kernels) return ops::rotate(x, rope.cos, rope.sin, rope.pairs);
  const int64_t width = 2 * rope.cos.size(1);
  const Tensor turned = x.slice(-1, 0, width).to(rope.cos.scalar_type()), rest = x.slice(-1, width);
  const Tensor cos = rope.cos.unsqueeze(1), sin = rope.sin.unsqueeze(1);  // the same for all heads
  Tensor result;
  if (rope.pairs) {
    const Tensor pairs = turned.unflatten(-1, {-1, 2}), a = pairs.select(-1, 0), b = pairs.select(-1, 1);
    result = torch::stack({a * cos - b * sin, b * cos + a * sin}, -1).flatten(-2);
  } else {
    const Tensor a = turned.slice(-1, 0, width / 2), b = turned.slice(-1, width / 2);
    result = torch::cat({a * cos - b * sin, b * cos + a * sin}, -1);
  }
  return torch::cat({result.to(x.scalar_type()), rest}, -1);
}

Tensor forward(const Params<Tensor>& params, const Tensor& tokens, const Pass& pass) {
  CHECK(tokens.dim() == 2 && tokens.scalar_type() == torch::kLong);
  const Rows rows = rows_of(pass, tokens, params.embed.scalar_type());
  if (pass.memory) pass.memory->layers.resize(size_t(pass.config.layers));
  const bool recompute = pass.recompute && torch::GradMode::is_enabled();
  const auto again = recompute ? std::make_shared<const Again>(rows) : nullptr;
  Tensor x = at::embedding(params.embed, tokens).to(params.norm.scalar_type());
  if (recompute && !x.requires_grad()) x.requires_grad_();  // a block whose input asks for no gradient would not be run again
  for (int64_t layer = 0; layer < pass.config.layers; ++layer) {
    const Block<Tensor>& block = params.blocks[size_t(layer)];
    x = recompute ? run_recomputed(x, block, layer, rows, again) : run_block(x, block, layer, rows);
    if (pass.trace.hidden) pass.trace.hidden->push_back(x);
  }
  if (pass.memory) trim(*pass.memory, rows);
  return x;
}

Tensor logits_of(const Params<Tensor>& params, const Tensor& x, const Pass& pass) {
  const ModelConfig& config = pass.config;
  return project(rms_norm(x, params.norm, config.norm_eps, pass.path), config.tied_head ? params.embed : params.head)
      .to(params.norm.scalar_type());
}

Tensor draft_forward(const Params<Tensor>& params, const Tensor& x, const Tensor& tokens, const Pass& pass) {
  const ModelConfig& config = pass.config;
  const Draft<Tensor>& draft = params.drafts.at(0);
  const int64_t time = tokens.size(1) - 1;
  Pass alone = pass;
  alone.memory = nullptr;
  const Rows rows = rows_of(alone, tokens.slice(1, 1), params.embed.scalar_type());
  const Tensor token = at::embedding(params.embed, tokens.slice(1, 1)).to(x.scalar_type());
  const Tensor state = rms_norm(x.slice(1, 0, time), params.norm, config.norm_eps, pass.path);
  const Tensor joint = torch::cat(
      {rms_norm(token, draft.token_norm, config.norm_eps, pass.path), rms_norm(state, draft.hidden_norm, config.norm_eps, pass.path)}, -1);
  return run_block(project(joint, draft.joint).to(x.scalar_type()), draft.block, config.layers, rows);
}

}  // namespace hadal::train
