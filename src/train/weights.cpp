#include "train/weights.h"

#include <fmt/ranges.h>

#include "train/torch.h"

#include <cmath>

#include "core/error.h"
#include "model/safetensors_writer.h"

namespace hadal::train {
namespace {

bool is_vector(Role role) { return role == Role::norm || role == Role::bias; }
bool is_selection_bias(const std::string& name) { return name.ends_with("e_score_correction_bias"); }
// Its products are added to the residual stream.
bool writes_stream(const std::string& name) { return name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight"); }

std::vector<int64_t> sizes(Shape shape, Role role) {
  return is_vector(role) ? std::vector<int64_t>{shape.rows} : std::vector<int64_t>{shape.rows, shape.cols};
}

// for_each_param reads its structure only; it takes no const one because most of its callers write.
template <class F>
void each(const ModelConfig& config, const Params<Tensor>& params, F f) {
  for_each_param(config, const_cast<Params<Tensor>&>(params), f);
}

template <class F>
Params<Tensor> map(const ModelConfig& config, const Params<Tensor>& params, F f) {
  Params<Tensor> result = make_params<Tensor>(config);
  std::vector<Tensor> made;
  each(config, params,
       [&](const std::string& name, Shape, Role role, const Tensor& t) { made.push_back(t.defined() ? f(name, role, t) : t); });
  size_t next = 0;
  for_each_param(config, result, [&](const std::string&, Shape, Role, Tensor& t) { t = made[next++]; });
  return result;
}

// FP8 weights carry one scale per block of rows and columns (DeepSeek-V3, README_WEIGHTS.md).
void apply_block_scales(Tensor& t, const std::string& name, const Fp8Config& fp8, const Checkpoint& checkpoint) {
  const auto found = checkpoint.tensors.find(name + "_scale_inv");
  if (found == checkpoint.tensors.end()) return;
  const int64_t block_rows = (t.size(0) + fp8.block_rows - 1) / fp8.block_rows,
                block_cols = (t.size(1) + fp8.block_cols - 1) / fp8.block_cols;
  if (found->second.shape != std::vector<int64_t>{block_rows, block_cols})
    throw Error("tensor {}: expected a scale for each of {} x {} blocks, found shape [{}]", found->first, block_rows, block_cols,
                fmt::join(found->second.shape, ", "));
  Tensor scales = torch::empty({block_rows, block_cols}, torch::kFloat);
  to_f32(found->second, 0, scales.numel(), scales.data_ptr<float>());
  scales = scales.repeat_interleave(fp8.block_rows, 0).repeat_interleave(fp8.block_cols, 1);
  t.mul_(scales.slice(0, 0, t.size(0)).slice(1, 0, t.size(1)));
}

}  // namespace

Params<Tensor> random_params(const ModelConfig& config, uint64_t seed) {
  const torch::NoGradGuard no_grad;
  torch::Generator generator = at::detail::createCPUGenerator(seed);
  Params<Tensor> params = make_params<Tensor>(config);
  for_each_param(config, params, [&](const std::string& name, Shape shape, Role role, Tensor& t) {
    if (is_vector(role)) {
      t = torch::full(sizes(shape, role), role == Role::norm && !name.ends_with(".bias") ? 1.f : 0.f);
    } else {
      const double deviation = 1 / std::sqrt(double(shape.cols)) / (writes_stream(name) ? std::sqrt(2. * double(config.layers)) : 1.);
      t = torch::randn(sizes(shape, role), generator, torch::kFloat).mul_(deviation);
    }
    t.requires_grad_(!is_selection_bias(name));
  });
  return params;
}

namespace {

constexpr double constant = 0.25;                       // the first number of every embedding, by which heads know no token from another
constexpr double nearby_low = 0.02, nearby_high = 0.2;  // radians per position of the pairs that tell near from far: some ten tokens
constexpr double nearby_logit = 8, nearby_gain = 5;

Tensor heads_of(const Tensor& weight, int64_t heads) { return weight.view({heads, -1, weight.size(1)}); }  // [heads, rows, dim]

// A head whose queries and keys are nearly the same for every token sees the nearest ones best. turned: rows that are rotated.
void look_nearby(const ModelConfig& config, const Tensor& q, const Tensor& k, const Tensor& turned_q, const Tensor& turned_k) {
  const std::vector<float> frequencies = rope_frequencies(config);
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < std::ssize(frequencies); ++i)
    if (frequencies[size_t(i)] >= nearby_low && frequencies[size_t(i)] <= nearby_high)
      rows.push_back(config.rope.layout == RopeLayout::halves ? i : 2 * i);
  if (rows.empty()) return;
  q.mul_(0.2), k.mul_(0.2);
  const double normed = constant * std::sqrt(double(config.dim) / (1 + constant * constant));
  const double value = std::sqrt(nearby_logit / (double(rows.size()) * config.attention_scale)) / normed;
  for (const int64_t row : rows) turned_q[row][0] = value, turned_k[row][0] = value;
}

void look_nearby(const ModelConfig& config, const Gqa<Tensor>& attention) {
  const Tensor q = heads_of(attention.q, config.heads)[0], k = heads_of(attention.k, config.kv_heads)[0];
  look_nearby(config, q, k, q, k);
  attention.o.narrow(1, 0, attention.o.size(1) / config.heads).mul_(nearby_gain);
}

void look_nearby(const ModelConfig& config, const Mla<Tensor>& attention) {
  if (config.q_rank > 0) return;
  const Tensor q = heads_of(attention.q, config.heads)[0], k = heads_of(attention.kv_up, config.heads)[0].narrow(0, 0, config.nope_dim);
  const Tensor turned_k = attention.kv_down.narrow(0, config.kv_rank, config.rope_dim);
  look_nearby(config, q, k, q.narrow(0, config.nope_dim, config.rope_dim), turned_k);
  attention.o.narrow(1, 0, attention.o.size(1) / config.heads).mul_(nearby_gain);
}

void look_for_own_token(const ModelConfig& config, const Gqa<Tensor>& attention) {
  const Tensor q = heads_of(attention.q, config.heads), k = heads_of(attention.k, config.kv_heads);
  const int64_t group = config.heads / config.kv_heads;
  for (int64_t head = 0; head < config.heads; head += std::max<int64_t>(group, 2)) q[head].copy_(k[head / group]);
}

void look_for_own_token(const ModelConfig& config, const Mla<Tensor>& attention) {
  if (config.q_rank > 0) return;
  const Tensor q = heads_of(attention.q, config.heads), up = heads_of(attention.kv_up, config.heads);
  const Tensor down = attention.kv_down.narrow(0, 0, config.kv_rank), turned = attention.kv_down.narrow(0, config.kv_rank, config.rope_dim);
  for (int64_t head = 0; head < config.heads; head += 2)
    q[head].copy_(torch::cat({up[head].narrow(0, 0, config.nope_dim).matmul(down), turned}));
}

}  // namespace

Params<Tensor> initial_params(const ModelConfig& config, uint64_t seed) {
  const torch::NoGradGuard no_grad;
  Params<Tensor> params = random_params(config, seed);
  params.embed.select(1, 0).fill_(constant);
  for (size_t layer = 0; layer < params.blocks.size(); ++layer)
    std::visit(
        [&](const auto& attention) {
          layer < params.blocks.size() / 2 ? look_nearby(config, attention) : look_for_own_token(config, attention);
        },
        params.blocks[layer].attn);
  return params;
}

Params<Tensor> load_params(const ModelConfig& config, const Checkpoint& checkpoint) {
  Params<Tensor> params = make_params<Tensor>(config);
  for_each_param(config, params, [&](const std::string& name, Shape shape, Role role, Tensor& t) {
    const auto found = checkpoint.tensors.find(name);
    if (found == checkpoint.tensors.end()) throw Error("tensor {}: expected in the checkpoint, found none of that name", name);
    const std::vector<int64_t> expected = sizes(shape, role);
    if (found->second.shape != expected)
      throw Error("tensor {}: expected shape [{}], found [{}]", name, fmt::join(expected, ", "), fmt::join(found->second.shape, ", "));
    t = torch::empty(expected, torch::kFloat);
    to_f32(found->second, 0, t.numel(), t.data_ptr<float>());
    if (t.dim() == 2) apply_block_scales(t, name, config.fp8, checkpoint);
    t.requires_grad_(!is_selection_bias(name));
  });
  return params;
}

std::vector<NamedTensor> named(const ModelConfig& config, const Params<Tensor>& params) {
  std::vector<NamedTensor> all;
  each(config, params, [&](const std::string& name, Shape, Role role, const Tensor& t) {
    if (t.defined()) all.push_back({name, role, t});
  });
  return all;
}

std::vector<Tensor> learnt(const ModelConfig& config, const Params<Tensor>& params) {
  std::vector<Tensor> all;
  each(config, params, [&](const std::string&, Shape, Role, const Tensor& t) {
    if (t.defined() && t.requires_grad()) all.push_back(t);
  });
  return all;
}

Params<Tensor> cast(const ModelConfig& config, const Params<Tensor>& params, torch::ScalarType type) {
  return map(config, params, [&](const std::string& name, Role role, const Tensor& t) {
    const bool product = role == Role::matrix || role == Role::embedding;
    return product && !is_expert(name) ? t.to(type) : t;
  });
}

Params<Tensor> copy(const ModelConfig& config, const Params<Tensor>& params) {
  return map(config, params, [](const std::string&, Role, const Tensor& t) { return t.detach().clone(); });
}

void save_params(const ModelConfig& config, const Params<Tensor>& params, DType type, const std::filesystem::path& file) {
  CHECK(type == DType::f32 || type == DType::bf16);
  const std::vector<NamedTensor> all = named(config, params);
  std::vector<PlannedTensor> plan;
  plan.reserve(all.size());
  for (const NamedTensor& p : all) plan.push_back({p.name, is_vector(p.role) ? DType::f32 : type, p.tensor.sizes().vec()});
  SafetensorsWriter writer(file, plan);
  for (size_t i = 0; i < all.size(); ++i) {
    const Tensor values = all[i].tensor.detach().to(plan[i].dtype == DType::f32 ? torch::kFloat : torch::kBFloat16).contiguous();
    writer.write({static_cast<const std::byte*>(values.data_ptr()), size_t(values.nbytes())});
  }
  writer.finish();
}

}  // namespace hadal::train
