#include "model/write_config.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "model/gguf.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr size_t longest_text = size_t(256) << 20;

Json rope_json(const RopeConfig& rope) {
  switch (rope.scaling) {
    case RopeScaling::none:
      return nullptr;
    case RopeScaling::linear:
      return {{"rope_type", "linear"}, {"factor", rope.factor}};
    case RopeScaling::llama3:
      return {{"rope_type", "llama3"},
              {"factor", rope.factor},
              {"original_max_position_embeddings", rope.original_context},
              {"low_freq_factor", rope.low_frequency},
              {"high_freq_factor", rope.high_frequency}};
    case RopeScaling::yarn:
      return {{"rope_type", "yarn"},         {"factor", rope.factor},       {"original_max_position_embeddings", rope.original_context},
              {"beta_fast", rope.beta_fast}, {"beta_slow", rope.beta_slow}, {"attention_factor", rope.magnitude}};
    case RopeScaling::table:
      return {{"rope_type", "table"}, {"divisors", rope.divisors}};
  }
  return nullptr;
}

void add_attention(Json& json, const ModelConfig& c) {
  json["attention_scale"] = c.attention_scale;
  if (c.attention == AttentionKind::mla) {
    json["q_lora_rank"] = c.q_rank > 0 ? Json(c.q_rank) : Json();
    json["kv_lora_rank"] = c.kv_rank;
    json["qk_nope_head_dim"] = c.nope_dim;
    json["qk_rope_head_dim"] = c.rope_dim;
    json["v_head_dim"] = c.v_dim;
    if (c.indexer.heads == 0) return;
    json["index_n_heads"] = c.indexer.heads;
    json["index_head_dim"] = c.indexer.dim;
    json["index_topk"] = c.indexer.keys;
    return;
  }
  if (c.family.starts_with("deepseek_v")) json["use_mla"] = false;
  json["num_key_value_heads"] = c.kv_heads;
  json["head_dim"] = c.head_dim;
  if (c.out_bias) json["attention_bias"] = true;
}

void add_experts(Json& json, const ModelConfig& c) {
  const MoeConfig& m = c.moe;
  json["n_routed_experts"] = m.experts > 0 ? Json(m.experts) : Json();
  json["num_experts_per_tok"] = m.active;
  if (m.experts == 0) return;
  json["n_shared_experts"] = m.shared;
  json["moe_intermediate_size"] = m.expert_dim;
  json["first_k_dense_replace"] = c.dense_layers;
  json["moe_layer_freq"] = c.moe_every;
  json["scoring_func"] = m.score == RouterScore::softmax ? "softmax" : m.score == RouterScore::sigmoid ? "sigmoid" : "sqrtsoftplus";
  json["topk_method"] = m.expert_choice ? "expert_choice" : m.bias ? "noaux_tc" : m.groups > 1 ? "group_limited_greedy" : "greedy";
  if (m.hash_layers > 0) json["num_hash_layers"] = m.hash_layers;
  json["n_group"] = m.groups;
  json["topk_group"] = m.active_groups;
  json["norm_topk_prob"] = m.normalize;
  json["routed_scaling_factor"] = m.scale;
}

// hadal's own keys, a number for each layer; nothing of a model that attends to everything.
void add_masks(Json& json, const ModelConfig& c) {
  const auto add = [&](const char* key, int64_t LayerMask::*field) {
    Json values = Json::array();
    for (int64_t layer = 0; layer < c.layers; ++layer) values.push_back(c.mask_of(layer).*field);
    if (std::ranges::any_of(values, [](const Json& value) { return value != 0; })) json[key] = values;
  };
  add("attention_window", &LayerMask::window);
  add("attention_sinks", &LayerMask::sinks);
  add("attention_topk_blocks", &LayerMask::top_blocks);
}

Json quantization(const std::string& weights) { return {{"quant_method", "hadal"}, {"weights", weights}, {"format", 1}}; }

Json parse(const std::string& text, const std::string& where) {
  try {
    return Json::parse(text);
  } catch (const Json::exception& e) {
    throw Error("{}: expected JSON: {}", where, e.what());
  }
}

void write_json(const fs::path& path, const Json& json) {
  write_atomically(path, [&](std::ostream& out) { out << json.dump(1, ' ', false, Json::error_handler_t::replace) << "\n"; });
}

void write_text(const fs::path& path, const std::string& text) {
  write_atomically(path, [&](std::ostream& out) { out << text; });
}

void copy_tokenizer(const fs::path& from, const fs::path& to) {  // and what belongs to it
  for (const char* name : {"generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                           "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model", "tokenizer.gguf", "chat_template.jinja"})
    if (fs::exists(from / name)) write_text(to / name, read_text(from / name, longest_text));
}

}  // namespace

std::string config_json(const ModelConfig& c, const std::string& weights, int64_t drafts) {
  Json json{{"model_type", c.family}};
  json["vocab_size"] = c.vocab;
  json["hidden_size"] = c.dim;
  json["intermediate_size"] = c.ffn_dim;
  json["num_hidden_layers"] = c.layers;
  json["num_attention_heads"] = c.heads;
  json["max_position_embeddings"] = c.context;
  json["rms_norm_eps"] = c.norm_eps;
  json["tie_word_embeddings"] = c.tied_head;
  json["num_nextn_predict_layers"] = drafts;
  json["rope_theta"] = c.rope.theta;
  json["rope_interleave"] = c.rope.layout == RopeLayout::pairs;
  json["rope_scaling"] = rope_json(c.rope);
  add_attention(json, c);
  if (c.family.starts_with("deepseek")) add_experts(json, c);
  add_masks(json, c);
  json["bos_token_id"] = c.begin_token;
  json["eos_token_id"] = c.end_tokens;
  if (!weights.empty()) json["quantization_config"] = quantization(weights);
  const std::string text = json.dump(1);
  // What the keys cannot say shows as a difference when they are read back.
  const ModelConfig back = parse_config(text, "", "the configuration just made");
  const bool same = back.qkv_bias == c.qkv_bias && back.out_bias == c.out_bias && back.qk_norm == c.qk_norm &&
                    back.attention == c.attention && back.rope.layout == c.rope.layout && back.moe.group_score == c.moe.group_score &&
                    back.moe.experts == c.moe.experts && back.attention_scale == c.attention_scale &&
                    back.rope.magnitude == c.rope.magnitude && back.moe.bias == c.moe.bias && back.moe.score == c.moe.score &&
                    back.moe.hash_layers == c.moe.hash_layers && back.moe.expert_choice == c.moe.expert_choice;
  if (!same)
    throw Error("this {} model cannot be written as config.json: its biases, norms or router are not those of the family", c.family);
  return text;
}

std::string packed_config_json(const std::string& published, const std::string& weights, int64_t drafts) {
  Json json = parse(published, "config.json");
  if (weights.empty())
    json.erase("quantization_config");
  else
    json["quantization_config"] = quantization(weights);
  for (const char* key : {"num_nextn_predict_layers", "num_mtp_layers"})
    if (json.contains(key)) json[key] = drafts;
  if (json.value("model_type", "").starts_with("deepseek_v3")) json["num_nextn_predict_layers"] = drafts;  // the family's default is 1
  return json.dump(1, ' ', false, Json::error_handler_t::replace);
}

void write_text_side(const fs::path& tokenizer, const ModelConfig& config, const fs::path& folder) {
  copy_tokenizer(tokenizer, folder);
  write_text(folder / "config.json", config_json(config, "", config.load_draft ? 1 : 0));
}

void write_text_side(const ModelSource& source, const fs::path& folder, const std::string& weights, int64_t drafts) {
  if (const auto gguf = source.gguf()) {
    write_text(folder / "tokenizer.gguf", gguf->metadata_alone());
    if (const std::string* chat = gguf->text("tokenizer.chat_template"); chat && !chat->empty())
      write_text(folder / "chat_template.jinja", *chat);
    return write_text(folder / "config.json", config_json(source.config(), weights, drafts));
  }
  copy_tokenizer(source.path(), folder);
  write_text(folder / "config.json", packed_config_json(read_text(source.path() / "config.json", longest_text), weights, drafts));
}

void write_index(const fs::path& folder, const std::map<std::string, std::string>& file_of_tensor, int64_t bytes) {
  write_json(folder / "model.safetensors.index.json", {{"metadata", {{"total_size", bytes}}}, {"weight_map", file_of_tensor}});
}

void write_report(const fs::path& folder, const PackingReport& report) {
  Json json{{"source", report.source}, {"recipe", report.recipe}, {"complete", report.complete}, {"shards", Json::array()}};
  for (const ShardReport& s : report.shards) {
    Json shard{{"file", s.file}, {"bytes", s.bytes}, {"checksum", fmt::format("{:016x}", s.checksum)}, {"parts", Json::object()}};
    for (const auto& [name, p] : s.parts)
      shard["parts"][name] = {{"values", p.values}, {"bytes", p.bytes}, {"squared_error", p.error}, {"squared_values", p.norm}};
    json["shards"].push_back(std::move(shard));
  }
  write_json(folder / "quantization.json", json);
}

PackingReport read_report(const fs::path& folder) {
  const fs::path path = folder / "quantization.json";
  PackingReport report;
  if (!fs::exists(path)) return report;
  const std::string where = path.string();
  try {
    const Json json = Json::parse(read_text(path, longest_text));
    report.source = json.at("source").get<std::string>();
    report.recipe = json.at("recipe").get<std::string>();
    report.complete = json.at("complete").get<bool>();
    for (const Json& s : json.at("shards")) {
      ShardReport shard{
          s.at("file").get<std::string>(), s.at("bytes").get<int64_t>(), std::stoull(s.at("checksum").get<std::string>(), nullptr, 16), {}};
      for (const auto& [name, p] : s.at("parts").items())
        shard.parts[name] = {p.at("values").get<int64_t>(), p.at("bytes").get<int64_t>(), p.at("squared_error").get<double>(),
                             p.at("squared_values").get<double>()};
      report.shards.push_back(std::move(shard));
    }
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    throw Error("{}: expected the report of an earlier packing: {}", where, e.what());
  }
  return report;
}

}  // namespace hadal
