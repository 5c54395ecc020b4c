#include "serve/model_card.h"

#include <map>
#include <nlohmann/json.hpp>

#include "core/pool.h"
#include "infer/engine.h"
#include "infer/kv_cache.h"
#include "infer/model.h"
#include "model/presets.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = char(std::tolower(uint8_t(c)));
  return out;
}

Json attention(const ModelConfig& c) {
  if (c.attention == AttentionKind::mla)
    return {{"kind", "mla"},        {"heads", c.heads},       {"q_rank", c.q_rank},
            {"kv_rank", c.kv_rank}, {"rope_dim", c.rope_dim}, {"v_dim", c.v_dim}};
  return {{"kind", "gqa"}, {"heads", c.heads}, {"kv_heads", c.kv_heads}, {"head_dim", c.head_dim}};
}

Json feed_forward(const ModelConfig& c) {
  if (c.moe.experts == 0) return {{"kind", "dense"}, {"dim", c.ffn_dim}};
  return {{"kind", "moe"},          {"experts", c.moe.experts},       {"active", c.moe.active},
          {"shared", c.moe.shared}, {"expert_dim", c.moe.expert_dim}, {"dense_layers", c.dense_layers}};
}

Json weights(const Model& model) {
  std::map<std::string, int64_t> types;  // bytes
  Params<Weight> params = model.params;
  for_each_param(model.config, params, [&](const std::string&, Shape, Role, Weight& w) { types[lower(name_of(w.dtype))] += w.bytes(); });
  int64_t bytes = 0;
  for (const auto& [type, size] : types) bytes += size;
  return {{"bytes", bytes}, {"types", types}, {"on_disk", model.experts != nullptr}};
}

}  // namespace

std::string model_card_json(const ServedModel& served, const Model& model, const EngineOptions& engine, int64_t cache_rows) {
  const ModelConfig& c = model.config;
  const ParameterCount parameters = count_parameters(c);
  const Json card{{"name", served.name},
                  {"version", served.version},
                  {"family", c.family},
                  {"parameters", {{"total", parameters.total}, {"active", parameters.active}}},
                  {"layers", c.layers},
                  {"dim", c.dim},
                  {"vocab", c.vocab},
                  {"context", c.context},
                  {"attention", attention(c)},
                  {"feed_forward", feed_forward(c)},
                  {"weights", weights(model)},
                  {"cache",
                   {{"type", lower(name_of(engine.cache))},
                    {"rows", cache_rows},
                    {"bytes", KvCache::bytes(c, engine.cache, cache_rows, engine.sequences)}}},
                  {"chat", served.chat},
                  {"threads", pool().threads()}};
  return card.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace hadal
