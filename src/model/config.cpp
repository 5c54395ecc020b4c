// config.json to ModelConfig. Keys, fallbacks and their sources: docs/numerics.md.
#include "model/config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "model/config_rules.h"

namespace hadal {
namespace {
using Json = nlohmann::json;

constexpr const char* supported[] = {"llama", "qwen2", "qwen3", "deepseek", "deepseek_v2", "deepseek_v3", "deepseek_v32"};

// What a family's own code takes when config.json does not have the key, under the published names. A key that is neither here nor
// in the file is null.
const Json& defaults_of(const std::string& family) {
  static const Json table = Json::parse(R"({
    "llama": {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
      "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2},
    "qwen2": {"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32,
      "num_key_value_heads": 32, "max_position_embeddings": 32768},
    "qwen3": {"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32,
      "num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 32768},
    "deepseek": {"vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "moe_intermediate_size": 1407,
      "num_hidden_layers": 30, "num_attention_heads": 32, "moe_layer_freq": 1, "first_k_dense_replace": 0, "topk_method": "greedy",
      "scoring_func": "softmax", "max_position_embeddings": 2048, "bos_token_id": 100000, "eos_token_id": 100001},
    "deepseek_v2": {"vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "moe_intermediate_size": 1407,
      "num_hidden_layers": 30, "num_attention_heads": 32, "moe_layer_freq": 1, "first_k_dense_replace": 0, "topk_method": "gready",
      "scoring_func": "softmax", "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
      "v_head_dim": 128, "max_position_embeddings": 2048, "bos_token_id": 100000, "eos_token_id": 100001},
    "deepseek_v3": {"vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
      "num_hidden_layers": 61, "num_nextn_predict_layers": 1, "num_attention_heads": 128, "n_shared_experts": 1, "n_routed_experts": 256,
      "num_experts_per_tok": 8, "moe_layer_freq": 1, "first_k_dense_replace": 3, "topk_method": "noaux_tc", "n_group": 8,
      "topk_group": 4, "norm_topk_prob": true, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "kv_lora_rank": 512,
      "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "max_position_embeddings": 4096,
      "bos_token_id": 0, "eos_token_id": 1}})");
  static const Json v32 = [] {
    Json v = table["deepseek_v3"];
    v.update({{"index_n_heads", 64}, {"index_head_dim", 128}, {"index_topk", 2048}, {"max_position_embeddings", 163840}});
    return v;
  }();
  return family == "deepseek_v32" ? v32 : table.at(family);
}

// For messages. Lists and objects are only counted: writing them out recurses as deep as the file nests.
std::string shown(const Json& value) {
  if (value.is_null()) return "nothing";
  if (value.is_array()) return fmt::format("a list of {}", value.size());
  if (value.is_object()) return "an object";
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

class Reader {  // one JSON object, read by key with its type and range
 public:
  Reader(const Json& object, const Json& defaults, std::string where, std::string prefix = "")
      : object_(object), defaults_(defaults), where_(std::move(where)), prefix_(std::move(prefix)) {}

  const Json& operator[](const char* key) const {  // null when it is nowhere
    static const Json nothing;
    if (const auto at = object_.find(key); at != object_.end()) return *at;
    if (const auto at = defaults_.find(key); at != defaults_.end()) return *at;
    return nothing;
  }
  bool has(const char* key) const { return !(*this)[key].is_null(); }

  int64_t integer(const char* key, int64_t low, int64_t high) const {
    const Json& value = (*this)[key];
    const bool whole = value.is_number_integer() && !(value.is_number_unsigned() && value.get<uint64_t>() > uint64_t(INT64_MAX));
    if (!whole || value.get<int64_t>() < low || value.get<int64_t>() > high)
      fail(key, fmt::format("a whole number from {} to {}", low, high));
    return value.get<int64_t>();
  }
  int64_t integer(const char* key, int64_t low, int64_t high, int64_t if_null) const {
    return has(key) ? integer(key, low, high) : if_null;
  }

  double real(const char* key, double low, double high) const {
    const Json& value = (*this)[key];
    if (!value.is_number() || !(value.get<double>() >= low && value.get<double>() <= high))
      fail(key, fmt::format("a number from {} to {}", low, high));
    return value.get<double>();
  }
  double real(const char* key, double low, double high, double if_null) const { return has(key) ? real(key, low, high) : if_null; }
  std::optional<double> maybe_real(const char* key, double low, double high) const {
    return has(key) ? std::optional(real(key, low, high)) : std::nullopt;
  }

  bool flag(const char* key, bool if_null) const {
    const Json& value = (*this)[key];
    if (value.is_null()) return if_null;
    if (!value.is_boolean()) fail(key, "true or false");
    return value.get<bool>();
  }
  std::string word(const char* key, const char* if_null) const {
    const Json& value = (*this)[key];
    if (value.is_null()) return if_null;
    if (!value.is_string()) fail(key, "a string");
    return value.get<std::string>();
  }

  [[noreturn]] void fail(const char* key, const std::string& expected) const {
    const Json& value = (*this)[key];
    throw Error("{}: {}{}: expected {}, found {}", where_, prefix_, key, expected, shown(value));
  }
  const std::string& where() const { return where_; }
  const Json& object() const { return object_; }

 private:
  const Json& object_;
  const Json& defaults_;
  std::string where_, prefix_;
};

Json parse_object(const std::string& text, const std::string& where) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::parse_error& e) {
    const size_t at = std::min(e.byte == 0 ? 0 : e.byte - 1, text.size()),
                 line_start = at == 0 ? std::string::npos : text.rfind('\n', at - 1);
    const auto line = 1 + std::count(text.begin(), text.begin() + std::ptrdiff_t(at), '\n');
    throw Error("{}: expected JSON, found something else at line {}, column {}", where, line,
                line_start == std::string::npos ? at + 1 : at - line_start);
  } catch (const Json::exception& e) {  // a number beyond double
    throw Error("{}: expected JSON: {}", where, e.what());
  }
  if (!json.is_object()) throw Error("{}: expected a JSON object, found {}", where, shown(json));
  return json;
}

void read_sizes(const Reader& in, ModelConfig& c) {
  c.vocab = in.integer("vocab_size", 1, largest_dim);
  c.dim = in.integer("hidden_size", 1, largest_dim);
  c.layers = in.integer("num_hidden_layers", 1, most_layers);
  c.heads = in.integer("num_attention_heads", 1, largest_dim);
  c.context = in.integer("max_position_embeddings", 1, longest_context);
  c.ffn_dim = in.integer("intermediate_size", 1, largest_dim);
  c.norm_eps = float(in.real("rms_norm_eps", 0, 1, 1e-6));
  c.tied_head = in.flag("tie_word_embeddings", false);
  c.draft_layers = in.integer(in.has("num_mtp_layers") ? "num_mtp_layers" : "num_nextn_predict_layers", 0, most_layers, 0);
  if (in.word("hidden_act", "silu") != "silu") in.fail("hidden_act", "\"silu\"");
  if (in.flag("mlp_bias", false)) in.fail("mlp_bias", "false");
}

void read_gqa(const Reader& in, ModelConfig& c) {
  c.attention = AttentionKind::gqa;
  c.kv_heads = in.integer("num_key_value_heads", 1, largest_dim, c.heads);
  if (!in.has("head_dim") && c.dim % c.heads != 0)
    in.fail("num_attention_heads", fmt::format("a divisor of hidden_size ({}) where head_dim is absent", c.dim));
  c.head_dim = in.integer("head_dim", 1, largest_dim, c.dim / c.heads);
  const bool all = in.flag("attention_bias", false) && c.family != "qwen2";
  c.qkv_bias = all || c.family == "qwen2";
  c.out_bias = all;
  c.qk_norm = c.family == "qwen3";
}

void read_mla(const Reader& in, ModelConfig& c) {
  c.attention = AttentionKind::mla;
  c.q_rank = in.integer("q_lora_rank", 0, largest_dim, 0);
  c.kv_rank = in.integer("kv_lora_rank", 1, largest_dim);
  c.nope_dim = in.integer("qk_nope_head_dim", 1, largest_dim);
  c.rope_dim = in.integer("qk_rope_head_dim", 2, largest_dim);
  c.v_dim = in.integer("v_head_dim", 1, largest_dim);
  if (in.flag("attention_bias", false)) in.fail("attention_bias", "false in a model with latent attention");
  if (c.family != "deepseek_v32") return;
  c.indexer.heads = in.integer("index_n_heads", 1, largest_dim);
  c.indexer.dim = in.integer("index_head_dim", 2, largest_dim);
  c.indexer.keys = in.integer("index_topk", 1, longest_context);
}

// layer_types, or sliding_window with the layers from max_window_layers on.
void read_windows(const Reader& in, ModelConfig& c) {
  const bool qwen = c.family.starts_with("qwen"), slides = in.flag("use_sliding_window", false);
  if (slides && !qwen) in.fail("use_sliding_window", "false");
  std::vector<bool> windowed(size_t(c.layers), false);
  const char* key = "layer_types";
  if (const Json& types = in[key]; !types.is_null()) {
    const std::string full = c.indexer.heads > 0 ? "indexed_attention" : "full_attention";
    if (!types.is_array()) in.fail(key, "a list");
    for (size_t layer = 0; layer < types.size(); ++layer) {
      const bool slides_here = qwen && types[layer] == "sliding_attention";
      if (slides_here && layer < windowed.size()) windowed[layer] = true;
      if (!slides_here && types[layer] != full)
        throw Error("{}: {}: expected \"{}\" in every layer, found {}", in.where(), key, full, shown(types[layer]));
    }
  } else if (slides) {
    const int64_t first = in.integer("max_window_layers", 0, most_layers, 28);
    for (int64_t layer = first; layer < c.layers; ++layer) windowed[size_t(layer)] = true;
  }
  if (std::find(windowed.begin(), windowed.end(), true) == windowed.end()) return;
  if (!slides) in.fail("use_sliding_window", "true where layer_types has sliding_attention");
  const int64_t window = in.integer("sliding_window", 1, longest_context, 4096);
  c.masks.resize(windowed.size());
  for (size_t layer = 0; layer < windowed.size(); ++layer) c.masks[layer].window = windowed[layer] ? window : 0;
}

// hadal's own keys: one number for all layers, or a list with one for each; 0 for none.
void read_masks(const Reader& in, ModelConfig& c) {
  const auto read = [&](const char* key, int64_t LayerMask::*field) {
    const Json& value = in[key];
    if (value.is_null()) return;
    if (!value.is_array()) {
      const int64_t all = in.integer(key, 0, longest_context);
      c.masks.resize(size_t(c.layers));
      for (LayerMask& mask : c.masks) mask.*field = all;
      return;
    }
    const auto whole = [](const Json& v) { return v.is_number_integer() && v >= 0 && v <= longest_context; };
    if (int64_t(value.size()) != c.layers || !std::all_of(value.begin(), value.end(), whole))
      in.fail(key, fmt::format("a number from 0 to {}, or a list of them for {} layers", longest_context, c.layers));
    c.masks.resize(size_t(c.layers));
    for (size_t layer = 0; layer < value.size(); ++layer) c.masks[layer].*field = value[layer].get<int64_t>();
  };
  read("attention_window", &LayerMask::window);
  read("attention_sinks", &LayerMask::sinks);
  read("attention_topk_blocks", &LayerMask::top_blocks);
}

RopeScaling scaling_of(const Reader& in) {
  const char* key = in.has("rope_type") ? "rope_type" : "type";
  const std::string name = in.word(key, "default");
  if (in.has("type") && in.word("type", "") != name) in.fail("type", fmt::format("the same as rope_type (\"{}\")", name));
  if (name == "default" || name == "none") return RopeScaling::none;
  if (name == "linear") return RopeScaling::linear;
  if (name == "llama3") return RopeScaling::llama3;
  if (name == "yarn") return RopeScaling::yarn;
  if (name == "table") return RopeScaling::table;  // ours: what GGUF files hold in place of llama3's numbers
  in.fail(key, "one of default, linear, llama3, yarn, table");
}

void check_rope_keys(const Reader& in) {
  static constexpr const char* known[] = {
      "type",        "rope_type",       "rope_theta",       "factor",    "original_max_position_embeddings",
      "mscale",      "mscale_all_dim",  "beta_fast",        "beta_slow", "attention_factor",
      "attn_factor", "low_freq_factor", "high_freq_factor", "truncate",  "partial_rotary_factor",
      "divisors"};
  for (const auto& [key, value] : in.object().items())
    if (!value.is_null() && std::find(std::begin(known), std::end(known), key) == std::end(known)) in.fail(key.c_str(), "no such key");
  if (!in.flag("truncate", true)) in.fail("truncate", "true");
}

void read_divisors(const Reader& in, ModelConfig& c) {
  const char* key = "divisors";
  const Json& list = in[key];
  const std::string expected = fmt::format("a list of {} numbers above 0", c.rotated_dim() / 2);
  if (!list.is_array() || int64_t(list.size()) != c.rotated_dim() / 2) in.fail(key, expected);
  for (const Json& value : list) {
    const float divisor = value.is_number() ? value.get<float>() : 0;
    if (!(divisor > 0 && std::isfinite(divisor))) in.fail(key, expected);
    c.rope.divisors.push_back(divisor);
  }
}

YarnScales read_rope(const Reader& top, ModelConfig& c) {
  const bool old_form = top["rope_scaling"].is_object() && !top["rope_scaling"].empty();
  const char* key = old_form ? "rope_scaling" : "rope_parameters";
  for (const char* k : {"rope_scaling", "rope_parameters"})
    if (top.has(k) && !top[k].is_object()) top.fail(k, "an object or null");
  static const Json empty = Json::object();
  const Reader in(top[key].is_object() ? top[key] : empty, empty, top.where(), std::string(key) + ".");
  check_rope_keys(in);
  for (const Reader* r : {&top, &in})
    if (r->real("partial_rotary_factor", 0, 1, 1) != 1) r->fail("partial_rotary_factor", "1");

  RopeConfig& rope = c.rope;
  rope.scaling = scaling_of(in);
  const Reader& theta = in.has("rope_theta") ? in : top;
  rope.theta = float(theta.real("rope_theta", 1e-3, 1e18, 10000));
  const bool mla = c.attention == AttentionKind::mla;
  rope.layout = top.flag("rope_interleave", mla) ? RopeLayout::pairs : RopeLayout::halves;
  if (rope.scaling == RopeScaling::none) return {};
  if (rope.scaling == RopeScaling::table) return read_divisors(in, c), YarnScales{};

  rope.factor = float(in.real("factor", 1e-3, 1e9));
  if (rope.scaling == RopeScaling::linear) return {};
  rope.original_context = in.integer("original_max_position_embeddings", 1, longest_context, mla ? 4096 : c.context);
  if (rope.scaling == RopeScaling::llama3) {
    rope.low_frequency = float(in.real("low_freq_factor", 1e-3, 1e9));
    rope.high_frequency = float(in.real("high_freq_factor", 1e-3, 1e9));
    return {};
  }
  rope.beta_fast = float(in.real("beta_fast", 1e-3, 1e9, 32));
  rope.beta_slow = float(in.real("beta_slow", 1e-3, 1e9, 1));
  return {in.maybe_real("mscale", 0, 1e3), in.maybe_real("mscale_all_dim", 0, 1e3), in.maybe_real("attention_factor", 1e-6, 1e6),
          in.maybe_real("attn_factor", 1e-6, 1e6)};
}

void read_routing(const Reader& in, MoeConfig& moe) {
  const std::string score = in.word("scoring_func", "softmax"), method = in.word("topk_method", "greedy");
  if (score != "softmax" && score != "sigmoid" && score != "sqrtsoftplus") in.fail("scoring_func", "softmax, sigmoid or sqrtsoftplus");
  moe.score = score == "softmax" ? RouterScore::softmax : score == "sigmoid" ? RouterScore::sigmoid : RouterScore::sqrt_softplus;
  moe.hash_layers = in.integer("num_hash_layers", 0, most_layers, 0);
  moe.expert_choice = method == "expert_choice";
  if (method == "greedy" || method == "gready" || moe.expert_choice) return;  // the second is a default of the published code
  if (method != "group_limited_greedy" && method != "noaux_tc") in.fail("topk_method", "greedy, group_limited_greedy or noaux_tc");
  moe.bias = method == "noaux_tc";
  moe.group_score = moe.bias ? GroupScore::top2_sum : GroupScore::best;
  if (!moe.bias && !in.has("n_group")) in.fail("n_group", "a number of groups (topk_method is group_limited_greedy)");
  moe.groups = in.integer("n_group", 1, most_experts, 1);
  moe.active_groups = in.integer("topk_group", 1, most_experts, moe.groups);
}

void read_moe_layers(const Reader& in, ModelConfig& c) {
  c.dense_layers = in.integer("first_k_dense_replace", 0, most_layers, 0);
  c.moe_every = in.integer("moe_layer_freq", 1, most_layers, 1);
  const char* key = "mlp_layer_types";
  const Json& types = in[key];
  if (types.is_null()) return;
  if (!types.is_array() || int64_t(types.size()) != c.layers) in.fail(key, fmt::format("a list of {} layers", c.layers));
  c.dense_layers = std::find(types.begin(), types.end(), Json("sparse")) - types.begin();
  c.moe_every = 1;
  for (int64_t l = 0; l < c.layers; ++l)
    if (types[size_t(l)] != (l < c.dense_layers ? "dense" : "sparse")) in.fail(key, "dense layers first, then sparse ones only");
}

void read_moe(const Reader& in, ModelConfig& c) {
  const char* names[] = {"n_routed_experts", "num_experts", "num_local_experts"};
  const auto name = std::find_if(std::begin(names), std::end(names), [&](const char* n) { return in.has(n); });
  if (name == std::end(names)) return;
  MoeConfig& moe = c.moe;
  moe.experts = in.integer(*name, 0, most_experts);
  if (moe.experts == 0) return;  // a dense model of a family whose published ones are mixtures
  moe.active = in.integer("num_experts_per_tok", 1, most_experts);
  moe.shared = in.integer("n_shared_experts", 0, most_experts, 0);
  moe.expert_dim = in.integer("moe_intermediate_size", 1, largest_dim);
  moe.normalize = in.flag("norm_topk_prob", false) && moe.active > 1;
  moe.scale = float(in.real("routed_scaling_factor", 0, 1e6, 1));
  read_routing(in, moe);
  read_moe_layers(in, c);
}

void read_quantization(const Reader& top, ModelConfig& c) {
  const char* key = "quantization_config";
  const Json& object = top[key];
  if (object.is_null()) return;
  if (!object.is_object()) top.fail(key, "an object or null");
  static const Json empty = Json::object();
  const Reader in(object, empty, top.where(), "quantization_config.");
  const std::string method = in.word("quant_method", "none");
  if (method == "none") return;
  if (method == "hadal") {  // docs/formats.md
    in.integer("format", 1, 1);
    return;
  }
  if (method != "fp8") in.fail("quant_method", "fp8, hadal or none");
  if (in.word("fmt", "e4m3") != "e4m3") in.fail("fmt", "\"e4m3\"");
  const Json& block = in["weight_block_size"];
  const auto size = [&](size_t i) { return block[i].is_number_integer() ? block[i].get<int64_t>() : 0; };
  if (!block.is_array() || block.size() != 2 || size(0) < 1 || size(1) < 1 || size(0) > largest_dim || size(1) > largest_dim)
    in.fail("weight_block_size", "rows and columns per scale, such as [128, 128]");
  c.fp8 = {size(0), size(1)};
}

void add_end_tokens(const Reader& in, std::vector<int32_t>& tokens) {
  const char* key = "eos_token_id";
  const Json& value = in[key];
  const auto add = [&](const Json& token) {
    if (!token.is_number_integer() || token < 0 || token > std::numeric_limits<int32_t>::max())
      in.fail(key, "a token id or a list of them");
    const auto id = token.get<int32_t>();
    if (std::find(tokens.begin(), tokens.end(), id) == tokens.end()) tokens.push_back(id);
  };
  if (value.is_null()) return;
  if (!value.is_array()) return add(value);
  if (value.size() > 1000) in.fail(key, "a list of at most 1000 token ids");
  for (const Json& token : value) add(token);
}

}  // namespace

ModelConfig parse_config(const std::string& json, const std::string& generation_json, const std::string& where) {
  static const Json empty = Json::object();
  const Json file = parse_object(json, where);
  ModelConfig c;
  const Reader plain(file, empty, where);
  c.family = plain.word("model_type", "");
  if (std::find(std::begin(supported), std::end(supported), c.family) == std::end(supported))
    plain.fail("model_type", fmt::format("one of {}", fmt::join(supported, ", ")));

  const Reader in(file, defaults_of(c.family), where);
  read_sizes(in, c);
  const bool latent = c.family.starts_with("deepseek_v");
  if (c.family == "deepseek_v32" && !in.flag("use_mla", true)) in.fail("use_mla", "true in a model with an indexer");
  if (latent && in.flag("use_mla", true)) {
    read_mla(in, c);
  } else {
    read_gqa(in, c);
  }
  read_windows(in, c);
  read_masks(in, c);
  const YarnScales yarn = read_rope(in, c);
  if (c.family.starts_with("deepseek")) read_moe(in, c);
  read_quantization(in, c);
  c.begin_token = int32_t(in.integer("bos_token_id", -1, std::numeric_limits<int32_t>::max(), -1));
  add_end_tokens(in, c.end_tokens);
  if (!generation_json.empty()) {
    const std::string beside = (std::filesystem::path(where).parent_path() / "generation_config.json").string();
    const Json generation = parse_object(generation_json, beside);
    add_end_tokens(Reader(generation, empty, beside), c.end_tokens);
  }
  set_attention_scale(c, yarn);
  c.attention_scale = float(in.real("attention_scale", 1e-9, 1e9, double(c.attention_scale)));  // ours: GGUF files keep no mscale
  check_config(c, where);
  return c;
}

ModelConfig read_config(const std::filesystem::path& folder) {
  constexpr size_t limit = size_t(16) << 20;
  const auto path = folder / "config.json", generation = folder / "generation_config.json";
  return parse_config(read_text(path, limit), std::filesystem::exists(generation) ? read_text(generation, limit) : "", path.string());
}

}  // namespace hadal
