#include "train/ranks.h"

#include <map>

#include "core/error.h"
#include "train/ops.h"

namespace hadal::train {
namespace {

using Counts = Ranks::Counts;

struct Way : torch::CustomClassHolder {  // that rows take
  Way(const Ranks& r, Counts there, Counts here) : exchange(r.exchange), sent(std::move(there)), received(std::move(here)) {}
  decltype(Ranks::exchange) exchange;
  Counts sent, received;
};

// The gradient takes the same way back.
struct Exchanged : torch::autograd::Function<Exchanged> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& rows, const c10::intrusive_ptr<Way>& way) {
    context->saved_data["way"] = c10::IValue::make_capsule(way);
    return way->exchange(rows.contiguous(), way->sent, way->received);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    const auto way = c10::static_intrusive_pointer_cast<Way>(context->saved_data["way"].toCapsule());
    return {way->exchange(gradients[0].contiguous(), way->received, way->sent), Tensor()};
  }
};

Tensor exchanged(const Tensor& rows, const Ranks& ranks, const Counts& sent, const Counts& received) {
  return Exchanged::apply(rows, c10::make_intrusive<Way>(ranks, sent, received));
}

// rows_of_expert: int64 [ranks * experts]
Counts of_each_rank(const Tensor& rows_of_expert, int64_t ranks) {
  const Tensor sums = rows_of_expert.view({ranks, -1}).sum(1);
  return {sums.data_ptr<int64_t>(), sums.data_ptr<int64_t>() + ranks};
}

// The tensor of the expert `by` further on.
std::string name_of_expert(const std::string& name, int64_t by) {
  const size_t begin = name.find(expert_mark) + expert_mark.size(), end = name.find('.', begin);
  return name.substr(0, begin) + std::to_string(std::stoll(name.substr(begin, end - begin)) + by) + name.substr(end);
}

}  // namespace

void wait_for_all(const Ranks& ranks) { any(ranks, false); }

bool any(const Ranks& ranks, bool here) {
  if (ranks.size == 1) return here;
  std::vector<Tensor> all{torch::full({1}, here ? 1.f : 0.f)};
  ranks.sum(all);
  return all[0].item<float>() > 0;
}

void keep_own_experts(const ModelConfig& config, Params<Tensor>& params, const Ranks& ranks) {
  const int64_t each = config.moe.experts / ranks.size, first = ranks.rank * each;
  if (config.moe.experts == 0) throw Error("the model has no experts: expected some to divide among {} programs", ranks.size);
  if (each * ranks.size != config.moe.experts)
    throw Error("{} experts of a layer: expected a multiple of {} programs, which they are divided among", config.moe.experts, ranks.size);
  if (config.moe.expert_choice) throw Error("experts that choose their rows cannot be divided among {} programs", ranks.size);
  const auto keep = [&](Block<Tensor>& block) {
    auto* moe = std::get_if<Moe<Tensor>>(&block.ffn);
    for (int64_t e = 0; moe && e < config.moe.experts; ++e)
      if (e < first || e >= first + each) moe->experts[size_t(e)] = {};
  };
  for (Block<Tensor>& block : params.blocks) keep(block);
  for (Draft<Tensor>& draft : params.drafts) keep(draft.block);
}

Tensor divided_experts(const Tensor& rows, const Routing& routing, const std::vector<Mlp<Tensor>>& experts, const Ranks& ranks) {
  const int64_t active = routing.expert.size(1), count = int64_t(experts.size()), each = count / ranks.size, first = ranks.rank * each;
  const Tensor chosen = routing.expert.flatten(), order = chosen.argsort(/*stable=*/true, 0, false), place = order.argsort();

  const Counts even(size_t(ranks.size), each);
  const Tensor rows_sent = torch::bincount(chosen, {}, count);         // for each expert
  const Tensor rows_received = ranks.exchange(rows_sent, even, even);  // of each rank for each expert that is here
  const Counts there = of_each_rank(rows_sent, ranks.size), here = of_each_rank(rows_received, ranks.size);

  const Tensor choices = rows.unsqueeze(1).expand({-1, active, -1}).flatten(0, 1).index_select(0, order);
  const Tensor arrived = exchanged(choices, ranks, there, here);
  Routing local;  // one choice of each row that arrived
  local.expert = torch::arange(each).repeat({ranks.size}).repeat_interleave(rows_received).unsqueeze(1);
  local.weight = torch::ones(local.expert.sizes(), routing.weight.options().requires_grad(false));
  const Tensor computed = ops::experts(arrived, local, {experts.begin() + first, experts.begin() + first + each});

  const Tensor back = exchanged(computed, ranks, here, there).index_select(0, place).view({-1, active, rows.size(1)});
  return (back.to(routing.weight.scalar_type()) * routing.weight.unsqueeze(2)).sum(1).to(rows.scalar_type());
}

std::vector<NamedTensor> gather(std::vector<NamedTensor> own, const ModelConfig& config, const Ranks& ranks) {
  if (!ranks.divide_experts()) return own;
  std::vector<NamedTensor> divided;
  std::vector<Tensor> numbers;
  for (const NamedTensor& t : own)
    if (is_expert(t.name)) {
      divided.push_back(t);
      numbers.push_back(t.tensor.detach().flatten());
    }
  const Tensor flat = torch::cat(numbers);
  Counts sent(size_t(ranks.size), 0), received(size_t(ranks.size), ranks.rank == 0 ? flat.numel() : 0);
  sent[0] = ranks.rank == 0 ? 0 : flat.numel();
  received[0] = 0;
  const Tensor all = ranks.exchange(ranks.rank == 0 ? flat.slice(0, 0, 0) : flat, sent, received);
  if (ranks.rank != 0) return own;
  int64_t at = 0;
  for (int64_t rank = 1; rank < ranks.size; ++rank)
    for (const NamedTensor& t : divided) {
      const int64_t numel = t.tensor.numel();
      own.push_back(
          {name_of_expert(t.name, rank * (config.moe.experts / ranks.size)), t.role, all.slice(0, at, at + numel).view(t.tensor.sizes())});
      at += numel;
    }
  return own;
}

Params<Tensor> gather(const Params<Tensor>& own, const ModelConfig& config, const Ranks& ranks) {
  if (!ranks.divide_experts()) return own;
  std::map<std::string, Tensor> found;
  for (const NamedTensor& t : gather(named(config, own), config, ranks)) found[t.name] = t.tensor;
  Params<Tensor> whole = make_params<Tensor>(config);
  if (ranks.rank == 0) for_each_param(config, whole, [&](const std::string& name, Shape, Role, Tensor& t) { t = found.at(name); });
  return whole;
}

}  // namespace hadal::train
