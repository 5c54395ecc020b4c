// GGUF metadata to ModelConfig. Keys: gguf-py's constants.py and llama.cpp's converters; differences from config.json: docs/numerics.md.
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "model/config.h"
#include "model/config_rules.h"
#include "model/gguf.h"

namespace hadal {
namespace {

constexpr const char* supported[] = {"llama", "qwen2", "qwen3", "deepseek", "deepseek2"};

class Reader {  // metadata of one architecture: keys are written without its name
 public:
  explicit Reader(const Gguf& file) : file_(file), architecture_(file.architecture()) {}

  bool has(const std::string& key) const { return file_.metadata().contains(full(key)); }
  int64_t integer(const std::string& key, int64_t low, int64_t high) const { return bounded(key, file_.integer(full(key)), low, high); }
  int64_t integer(const std::string& key, int64_t low, int64_t high, int64_t otherwise) const {
    return has(key) ? integer(key, low, high) : otherwise;
  }
  double real(const std::string& key, double low, double high, double otherwise) const {
    if (!has(key)) return otherwise;
    const double value = file_.real(full(key), otherwise);
    if (!(value >= low && value <= high)) fail(key, fmt::format("a number from {} to {}", low, high), value);
    return value;
  }
  std::optional<double> maybe_real(const std::string& key, double low, double high) const {
    return has(key) ? std::optional(real(key, low, high, 0)) : std::nullopt;
  }
  bool flag(const std::string& key, bool otherwise) const { return file_.flag(full(key), otherwise); }
  std::string word(const std::string& key) const {
    const std::string* text = file_.text(full(key));
    return text ? *text : "";
  }
  const StoredTensor* tensor(const std::string& name) const {
    const auto at = file_.stored().find(name);
    return at == file_.stored().end() ? nullptr : &at->second;
  }

  template <class Found>
  [[noreturn]] void fail(const std::string& key, const std::string& expected, const Found& found) const {
    throw Error("{}: {}: expected {}, found {}", where(), full(key), expected, found);
  }
  std::string where() const { return file_.path().string(); }
  const std::string& architecture() const { return architecture_; }
  const Gguf& file() const { return file_; }

 private:
  std::string full(const std::string& key) const { return architecture_ + "." + key; }
  int64_t bounded(const std::string& key, int64_t value, int64_t low, int64_t high) const {
    if (value < low || value > high) fail(key, fmt::format("a whole number from {} to {}", low, high), value);
    return value;
  }
  const Gguf& file_;
  std::string architecture_;
};

void read_sizes(const Reader& in, ModelConfig& c) {
  const StoredTensor* embedding = in.tensor("token_embd.weight");
  if (!embedding || embedding->shape.size() != 2)
    throw Error("{}: token_embd.weight: expected a matrix of token embeddings, found {}", in.where(),
                embedding ? "another shape" : "nothing");
  c.vocab = embedding->shape[0];
  c.dim = in.integer("embedding_length", 1, largest_dim);
  if (c.vocab < 1 || c.vocab > largest_dim || embedding->shape[1] != c.dim)
    throw Error("{}: token_embd.weight: expected at most {} rows of {}, found {} x {}", in.where(), largest_dim, c.dim, c.vocab,
                embedding->shape[1]);
  c.tied_head = !in.tensor("output.weight");
  c.layers = in.integer("block_count", 1, most_layers);
  // Newer converters count the multi-token prediction layers as blocks.
  while (c.layers > 1 && in.tensor(fmt::format("blk.{}.nextn.eh_proj.weight", c.layers - 1))) {
    --c.layers;
    ++c.draft_layers;
  }
  c.heads = in.integer("attention.head_count", 1, largest_dim);
  c.context = in.integer("context_length", 1, longest_context);
  c.ffn_dim = in.integer("feed_forward_length", 1, largest_dim);
  c.norm_eps = float(in.real("attention.layer_norm_rms_epsilon", 0, 1, 1e-6));
  if (in.integer("attention.sliding_window", 0, longest_context, 0) != 0) in.fail("attention.sliding_window", "none", "one");
}

void read_gqa(const Reader& in, ModelConfig& c) {
  c.kv_heads = in.integer("attention.head_count_kv", 1, largest_dim, c.heads);
  if (!in.has("attention.key_length") && c.dim % c.heads != 0)
    in.fail("attention.head_count", fmt::format("a divisor of embedding_length ({})", c.dim), c.heads);
  c.head_dim = in.integer("attention.key_length", 1, largest_dim, c.dim / c.heads);
  for (const char* key : {"attention.value_length", "rope.dimension_count"})
    if (const int64_t n = in.integer(key, 1, largest_dim, c.head_dim); n != c.head_dim)
      in.fail(key, fmt::format("the width of a head ({})", c.head_dim), n);
  c.qkv_bias = in.tensor("blk.0.attn_q.bias");
  c.out_bias = in.tensor("blk.0.attn_output.bias");
  c.qk_norm = in.tensor("blk.0.attn_q_norm.weight");
  // Converters of these two store q and k with each head's halves interleaved.
  const bool permuted = in.architecture() == "llama" || in.architecture() == "deepseek";
  c.rope.layout = permuted ? RopeLayout::pairs : RopeLayout::halves;
}

void read_mla(const Reader& in, ModelConfig& c) {
  c.attention = AttentionKind::mla;
  c.q_rank = in.integer("attention.q_lora_rank", 0, largest_dim, 0);
  c.kv_rank = in.integer("attention.kv_lora_rank", 1, largest_dim);
  c.rope_dim = in.integer("rope.dimension_count", 2, largest_dim);
  // Files for absorbed attention give the sizes of the latent as key_length and value_length, and those of a head as *_mla.
  const bool absorbed = in.has("attention.key_length_mla");
  const char* key = absorbed ? "attention.key_length_mla" : "attention.key_length";
  const int64_t key_dim = in.integer(key, 1, largest_dim);
  if (key_dim <= c.rope_dim) in.fail(key, fmt::format("more than rope.dimension_count ({})", c.rope_dim), key_dim);
  c.nope_dim = key_dim - c.rope_dim;
  c.v_dim = in.integer(absorbed ? "attention.value_length_mla" : "attention.value_length", 1, largest_dim);
  c.rope.layout = RopeLayout::pairs;
}

// Converters store Llama 3's scaling as one divisor per frequency, not as the numbers it came from.
void read_divisors(const Reader& in, ModelConfig& c) {
  const StoredTensor* stored = in.tensor("rope_freqs.weight");
  if (!stored) return;
  const auto fail = [&](const std::string& expected, const std::string& found) {
    throw Error("{}: rope_freqs.weight: expected {}, found {}", in.where(), expected, found);
  };
  if (c.rope.scaling != RopeScaling::none) fail("no rope.scaling beside it", "one");
  if (stored->dtype != DType::f32 || stored->shape != std::vector<int64_t>{c.head_dim / 2})
    fail(fmt::format("{} F32 values", c.head_dim / 2), fmt::format("{} {} values", stored->count(), name_of(stored->dtype)));
  c.rope.scaling = RopeScaling::table;
  c.rope.divisors.resize(size_t(c.head_dim / 2));
  to_f32(*stored, 0, c.head_dim / 2, c.rope.divisors.data());
  for (const float d : c.rope.divisors)
    if (!(d > 0 && std::isfinite(d))) fail("divisors above 0", fmt::format("{}", d));
}

YarnScales read_rope(const Reader& in, ModelConfig& c) {
  RopeConfig& rope = c.rope;
  rope.theta = float(in.real("rope.freq_base", 1e-3, 1e18, 10000));
  const std::string type = in.word("rope.scaling.type");
  const double old_linear = in.real("rope.scale_linear", 1e-3, 1e9, 1);  // files before rope.scaling existed
  if (type.empty() && old_linear != 1) {
    rope.scaling = RopeScaling::linear;
    rope.factor = float(old_linear);
  } else if (type == "linear" || type == "yarn") {
    rope.scaling = type == "linear" ? RopeScaling::linear : RopeScaling::yarn;
    rope.factor = float(in.real("rope.scaling.factor", 1e-3, 1e9, 1));
  } else if (!type.empty() && type != "none") {
    in.fail("rope.scaling.type", "none, linear or yarn", type);
  }
  if (c.attention == AttentionKind::gqa) {
    if (c.head_dim % 2 != 0) in.fail("attention.key_length", "an even number", c.head_dim);
    read_divisors(in, c);
  }
  if (rope.scaling != RopeScaling::yarn) return {};

  rope.original_context = in.integer("rope.scaling.original_context_length", 1, longest_context, c.context);
  rope.beta_fast = float(in.real("rope.scaling.yarn_beta_fast", 1e-3, 1e9, 32));
  rope.beta_slow = float(in.real("rope.scaling.yarn_beta_slow", 1e-3, 1e9, 1));
  YarnScales yarn;
  if (const auto tenth = in.maybe_real("rope.scaling.yarn_log_multiplier", 0, 100); tenth && *tenth > 0)
    yarn.mscale = yarn.mscale_all_dim = *tenth * 10;  // the format has no mscale of its own; published models have both equal
  yarn.attn_factor =
      in.maybe_real(in.has("rope.scaling.yarn_attn_factor") ? "rope.scaling.yarn_attn_factor" : "rope.scaling.attn_factor", 1e-6, 1e6);
  return yarn;
}

void read_moe(const Reader& in, ModelConfig& c) {
  MoeConfig& moe = c.moe;
  moe.experts = in.integer("expert_count", 0, most_experts, 0);
  if (moe.experts == 0) return;
  if (!in.architecture().starts_with("deepseek")) in.fail("expert_count", "a dense model in this architecture", moe.experts);
  moe.active = in.integer("expert_used_count", 1, most_experts);
  moe.shared = in.integer("expert_shared_count", 0, most_experts, 0);
  moe.expert_dim = in.integer("expert_feed_forward_length", 1, largest_dim);
  moe.normalize = in.flag("expert_weights_norm", false) && moe.active > 1;
  const double scale = in.real("expert_weights_scale", 0, 1e6, 1);
  moe.scale = scale == 0 ? 1 : float(scale);  // 0 is how some converters say that there is none
  const int64_t gate = in.integer("expert_gating_func", 0, 1000, 0);
  if (gate > 2) in.fail("expert_gating_func", "1 (softmax) or 2 (sigmoid)", gate);
  moe.score = gate == 2 ? RouterScore::sigmoid : RouterScore::softmax;  // absent in files older than the key, all of them softmax
  c.dense_layers = in.integer("leading_dense_block_count", 0, most_layers, 0);
  c.moe_every = in.integer("moe_every_n_layers", 1, most_layers, 1);
  if (c.dense_layers < c.layers) moe.bias = in.tensor(fmt::format("blk.{}.exp_probs_b.bias", c.dense_layers));
  moe.group_score = moe.bias ? GroupScore::top2_sum : GroupScore::best;
  moe.groups = std::max<int64_t>(1, in.integer("expert_group_count", 0, most_experts, 1));
  moe.active_groups = std::max<int64_t>(1, in.integer("expert_group_used_count", 0, most_experts, moe.groups));
}

void read_tokens(const Reader& in, ModelConfig& c) {
  const auto token = [&](const char* key) {
    const int64_t id = in.file().integer(key, -1);
    if (id < -1 || id > std::numeric_limits<uint32_t>::max()) throw Error("{}: {}: expected a token id, found {}", in.where(), key, id);
    return id > std::numeric_limits<int32_t>::max() ? -1 : int32_t(id);  // 0xffffffff says that there is none
  };
  c.begin_token = token("tokenizer.ggml.bos_token_id");
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const int32_t id = token(key); id >= 0 && std::find(c.end_tokens.begin(), c.end_tokens.end(), id) == c.end_tokens.end())
      c.end_tokens.push_back(id);
}

}  // namespace

ModelConfig config_of(const Gguf& file) {
  const Reader in(file);
  const std::string& architecture = in.architecture();
  if (std::find(std::begin(supported), std::end(supported), architecture) == std::end(supported))
    throw Error("{}: general.architecture: expected one of {}, found \"{}\"", in.where(), fmt::join(supported, ", "), architecture);
  ModelConfig c;
  c.family = architecture;
  read_sizes(in, c);
  const bool latent = architecture == "deepseek2";
  if (latent) {
    read_mla(in, c);
  } else {
    read_gqa(in, c);
  }
  const YarnScales yarn = read_rope(in, c);
  read_moe(in, c);
  if (latent) c.family = c.moe.score == RouterScore::sigmoid ? "deepseek_v3" : "deepseek_v2";
  read_tokens(in, c);
  set_attention_scale(c, yarn);
  check_config(c, in.where());
  return c;
}

}  // namespace hadal
