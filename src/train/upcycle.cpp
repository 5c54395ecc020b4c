#include "train/upcycle.h"

#include "train/torch.h"

#include <cmath>

#include "core/error.h"
#include "model/source.h"
#include "model/write_config.h"
#include "train/upcycle_params.h"

namespace hadal::train {
namespace {

int64_t slices_of(const ModelConfig& moe, int64_t width) { return width / moe.moe.expert_dim - moe.moe.shared; }

Mlp<Tensor> slice(const Mlp<Tensor>& dense, int64_t first, int64_t width) {
  const auto own = [](const Tensor& t) { return t.detach().clone(); };
  return {own(dense.gate.narrow(0, first, width)), own(dense.up.narrow(0, first, width)), own(dense.down.narrow(1, first, width))};
}

Moe<Tensor> mixture_of(const Mlp<Tensor>& dense, const ModelConfig& config, const Upcycling& how, torch::Generator& generator) {
  const MoeConfig& m = config.moe;
  const int64_t slices = slices_of(config, dense.gate.size(0));
  const double deviation = 1 / std::sqrt(double(config.dim));
  const auto normal = [&](int64_t rows) { return torch::randn({rows, config.dim}, generator, torch::kFloat) * deviation; };
  Moe<Tensor> moe;
  moe.router = normal(m.experts / slices).repeat_interleave(slices, 0);
  if (how.router_noise > 0) moe.router += normal(m.experts) * how.router_noise;
  if (m.bias) moe.bias = torch::zeros({m.experts});
  for (int64_t e = 0; e < m.experts; ++e) moe.experts.push_back(slice(dense, (m.shared + e % slices) * m.expert_dim, m.expert_dim));
  if (m.shared > 0) moe.shared = slice(dense, 0, m.shared * m.expert_dim);
  return moe;
}

}  // namespace

ModelConfig upcycled_config(const ModelConfig& dense, const Upcycling& how) {
  if (dense.moe.experts > 0) throw Error("upcycle: expected a dense model, found one with {} experts", dense.moe.experts);
  if (dense.qkv_bias || dense.qk_norm || (dense.family != "llama" && !dense.family.starts_with("deepseek")))
    throw Error("upcycle: expected a model of the llama or deepseek families, whose mixtures can be written, found {}", dense.family);
  const int64_t width = how.expert_dim > 0 ? how.expert_dim : dense.ffn_dim, slices = dense.ffn_dim / width - how.shared;
  if (dense.ffn_dim % width != 0)
    throw Error("upcycle: expert_dim: expected a divisor of the dense width {}, found {}", dense.ffn_dim, width);
  if (how.shared < 0 || slices < 1)
    throw Error("upcycle: shared: expected 0 to {}, which leaves a slice to route, found {}", dense.ffn_dim / width - 1, how.shared);
  if (how.experts < slices || how.experts % slices != 0)
    throw Error("upcycle: experts: expected a multiple of the {} routed slices of each layer, found {}", slices, how.experts);
  if (how.active < 2 || how.active > how.experts || how.active % slices != 0)
    throw Error("upcycle: active: expected a multiple of the {} routed slices from 2 to {}, found {}", slices, how.experts, how.active);
  if (how.groups < 1 || (how.experts / slices) % how.groups != 0)
    throw Error("upcycle: groups: expected a divisor of the {} copies of each layer, found {}", how.experts / slices, how.groups);
  if (how.active_groups < 1 || how.active_groups > how.groups || how.active > how.experts / how.groups * how.active_groups)
    throw Error("upcycle: active_groups: expected 1 to {} groups of {} experts that hold the {} active, found {}", how.groups,
                how.experts / how.groups, how.active, how.active_groups);
  if (how.dense_layers < 0 || how.dense_layers >= dense.layers)
    throw Error("upcycle: dense_layers: expected 0 to {}, found {}", dense.layers - 1, how.dense_layers);
  ModelConfig config = dense;
  if (dense.family == "llama") config.family = "deepseek";
  config.dense_layers = how.dense_layers;
  config.moe_every = 1;
  config.draft_layers = 0;
  config.load_draft = false;
  config.moe = {.experts = how.experts,
                .active = how.active,
                .shared = how.shared,
                .expert_dim = width,
                .groups = how.groups,
                .active_groups = how.active_groups,
                .score = how.score,
                .group_score = how.bias ? GroupScore::top2_sum : GroupScore::best,
                .bias = how.bias,
                .normalize = true,
                .scale = float(slices)};
  return config;
}

Params<Tensor> upcycle(const ModelConfig& dense, const Params<Tensor>& params, const Upcycling& how) {
  const torch::NoGradGuard no_grad;
  const ModelConfig config = upcycled_config(dense, how);
  torch::Generator generator = at::detail::createCPUGenerator(how.seed);
  Params<Tensor> result = copy(dense, params);
  result.drafts.clear();
  for (int64_t layer = how.dense_layers; layer < dense.layers; ++layer) {
    const auto& mlp = std::get<Mlp<Tensor>>(params.blocks[size_t(layer)].ffn);
    result.blocks[size_t(layer)].ffn = mixture_of(mlp, config, how, generator);
  }
  for (const NamedTensor& p : named(config, result)) {
    Tensor t = p.tensor;
    t.requires_grad_(!p.name.ends_with("e_score_correction_bias"));
  }
  return result;
}

void upcycle_checkpoint(const std::filesystem::path& dense, const Upcycling& how, DType type, const std::filesystem::path& folder) {
  if (std::filesystem::exists(folder)) throw Error("{}: expected a new folder, found one that exists", folder.string());
  const ModelSource source(dense);
  if (source.gguf()) throw Error("{}: expected a folder in Hugging Face layout, found a GGUF file", dense.string());
  ModelConfig config = source.config();
  config.load_draft = false;
  const ModelConfig mixture = upcycled_config(config, how);
  const Params<Tensor> params = upcycle(config, load_params(config, source.checkpoint()), how);
  std::filesystem::create_directories(folder);
  save_params(mixture, params, type, folder / "model.safetensors");
  write_text_side(dense, mixture, folder);
}

}  // namespace hadal::train
