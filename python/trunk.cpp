#include "python/trunk.h"

#include <ATen/autocast_mode.h>
#include <fmt/ranges.h>

#include <ostream>

#include "core/error.h"
#include "core/files.h"
#include "core/memory.h"
#include "model/config_rules.h"
#include "model/presets.h"
#include "model/write_config.h"
#include "train/parts.h"
#include "train/weights.h"

namespace hadal {
namespace {
namespace fs = std::filesystem;

std::vector<Tensor> tensors_of(const ModelConfig& config, const Params<Tensor>& params) {
  std::vector<Tensor> all;
  for (const train::NamedTensor& p : train::named(config, params)) all.push_back(p.tensor.requires_grad_(false));
  return all;
}

ModelConfig with_masks(ModelConfig config, const TrunkCall& call) {
  if (call.window > 0) config.attention_window = call.window;
  if (call.sinks > 0) config.attention_sinks = call.sinks;
  if (call.top_blocks > 0) config.attention_top_blocks = call.top_blocks;
  check_config(config, "these options");
  return config;
}

void check_tokens(const Tensor& tokens, const ModelConfig& config) {
  if (tokens.dim() != 2 || tokens.scalar_type() != torch::kLong)
    throw Error("input_ids: expected int64 of shape [batch, tokens], found {} of shape [{}]", c10::toString(tokens.scalar_type()),
                fmt::join(tokens.sizes(), ", "));
  if (tokens.numel() == 0)
    throw Error("input_ids: expected at least one token in each row, found shape [{}]", fmt::join(tokens.sizes(), ", "));
  const int64_t least = tokens.min().item<int64_t>(), most = tokens.max().item<int64_t>();
  if (least < 0 || most >= config.vocab)
    throw Error("input_ids: expected ids from 0 to {}, found {}", config.vocab - 1, least < 0 ? least : most);
}

// As the kernels read them: matrices in the type of products, which autocast may choose; norms, biases, routers and experts in float32, or
// double beside double. Gradients find their way back to what they were.
Params<Tensor> readable(const ModelConfig& config, Params<Tensor> params) {
  const bool autocast = at::autocast::is_autocast_enabled(at::kCPU);
  const torch::ScalarType products = autocast ? at::autocast::get_autocast_dtype(at::kCPU) : params.embed.scalar_type();
  const torch::ScalarType wide = products == torch::kDouble ? torch::kDouble : torch::kFloat;
  for_each_param(config, params, [&](const std::string& name, Shape, Role role, Tensor& t) {
    const bool product = (role == Role::matrix || role == Role::embedding) && name.find(".experts.") == std::string::npos;
    t = t.to(product ? products : wide).contiguous();
  });
  return params;
}

void check_room(const ModelConfig& config) {  // before the system ends this program, or another
  const int64_t needed = 4 * count_parameters(config).total, there = int64_t(available_memory());
  if (needed > there)
    throw Error("this model's parameters take {:.1f} GB in float32: expected at most what is free, found {:.1f} GB", double(needed) * 1e-9,
                double(there) * 1e-9);
}

class WithoutAutocast {  // what autocast would do was done to the parameters, once
 public:
  WithoutAutocast() : enabled_(at::autocast::is_autocast_enabled(at::kCPU)) { at::autocast::set_autocast_enabled(at::kCPU, false); }
  ~WithoutAutocast() { at::autocast::set_autocast_enabled(at::kCPU, enabled_); }
  WithoutAutocast(const WithoutAutocast&) = delete;

 private:
  bool enabled_;
};

}  // namespace

Trunk::Trunk(ModelConfig config) : config_(std::move(config)) {
  config_.load_draft = false;
  Params<Tensor> none = make_params<Tensor>(config_);
  for_each_param(config_, none, [&](const std::string& name, Shape shape, Role role, Tensor&) {
    const bool vector = role == Role::norm || role == Role::bias;
    parameters_.push_back({name, vector ? std::vector<int64_t>{shape.rows} : std::vector<int64_t>{shape.rows, shape.cols},
                           !name.ends_with("e_score_correction_bias")});
  });
}

std::vector<Tensor> Trunk::random(uint64_t seed) const {
  check_room(config_);
  return tensors_of(config_, train::random_params(config_, seed));
}

std::vector<Tensor> Trunk::load(const ModelSource& source) const {
  check_room(config_);
  return tensors_of(config_, train::load_params(config_, source.checkpoint()));
}

Params<Tensor> Trunk::params_of(const std::vector<Tensor>& tensors) const {
  if (tensors.size() != parameters_.size()) throw Error("parameters: expected {}, found {}", parameters_.size(), tensors.size());
  Params<Tensor> params = make_params<Tensor>(config_);
  size_t next = 0;
  for_each_param(config_, params, [&](const std::string& name, Shape, Role, Tensor& t) {
    t = tensors[next];
    const Parameter& expected = parameters_[next++];
    if (!t.defined() || t.sizes() != at::IntArrayRef(expected.shape) || !t.is_floating_point())
      throw Error("{}: expected floating point values of shape [{}], found {}", name, fmt::join(expected.shape, ", "),
                  t.defined() ? fmt::format("{} of shape [{}]", c10::toString(t.scalar_type()), fmt::join(t.sizes(), ", ")) : "none");
    if (!t.device().is_cpu())
      throw Error("{}: expected a tensor on the CPU, where hadal computes, found one on {}", name, t.device().str());
  });
  return params;
}

TrunkResult Trunk::forward(const std::vector<Tensor>& tensors, const TrunkCall& call) const {
  const ModelConfig config = with_masks(config_, call);
  check_tokens(call.tokens, config);
  if (call.routings && call.recompute && torch::GradMode::is_enabled())
    throw Error("output_router_logits: expected no gradient checkpointing, under which a loss of them has no way back");
  const Params<Tensor> params = readable(config, params_of(tensors));
  const WithoutAutocast here;

  TrunkResult result;
  const bool kernels = params.embed.scalar_type() != torch::kHalf;
  train::Pass pass{
      .config = config, .path = kernels ? train::Path::kernels : train::Path::algebra, .recompute = call.recompute, .memory = call.memory};
  if (call.hidden) pass.trace.hidden = &result.hidden;
  if (call.routings)  // the trace has them without their history
    pass.balance = [&](const train::Routing& routing, int64_t layer) {
      result.routings.push_back({layer, routing});
      return torch::zeros({}, routing.logits.options());
    };
  const Tensor x = train::forward(params, call.tokens, pass);
  result.logits = train::logits_of(params, x, pass);
  if (call.hidden) {
    result.hidden.insert(result.hidden.begin(), at::embedding(params.embed, call.tokens).to(x.scalar_type()));
    result.hidden.back() = train::rms_norm(x, params.norm, config.norm_eps, pass.path);
  }
  return result;
}

void Trunk::save(const std::vector<Tensor>& tensors, DType type, const fs::path& folder, const std::string& config_json,
                 const ModelSource* source) const {
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) throw Error("{}: cannot be made a folder: {}", folder.string(), failed.message());
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    const bool weights = name.ends_with(".safetensors") || name.ends_with(".bin") || name.ends_with(".index.json");
    if (weights && name != "model.safetensors")
      throw Error("{}: expected an empty folder or an earlier model.safetensors, found {}: another model's weights", folder.string(), name);
  }
  const Params<Tensor> params = params_of(tensors);
  if (source) write_text_side(*source, folder, "", 0);
  write_atomically(folder / "config.json", [&](std::ostream& out) { out << config_json << "\n"; });
  train::save_params(config_, params, type, folder / "model.safetensors");
}

}  // namespace hadal
