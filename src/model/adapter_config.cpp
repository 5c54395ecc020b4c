#include "model/adapter_config.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;  // of several patterns that match, the first counts

std::string shown(const Json& value) {
  if (value.is_array()) return fmt::format("a list of {}", value.size());
  if (value.is_object()) return "an object";
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

bool is_off(const Json& value) { return value.is_null() || value == false || value.empty(); }  // null, {} and [] are empty

void refuse(const Json& root, const std::string& where) {
  if (const Json type = root.value("peft_type", Json("LORA")); type != "LORA")
    throw Error("{}: peft_type: expected \"LORA\", found {}", where, shown(type));
  if (const Json bias = root.value("bias", Json("none")); bias != "none")
    throw Error("{}: bias: expected \"none\" (trained biases are not supported), found {}", where, shown(bias));
  constexpr std::pair<const char*, const char*> unsupported[] = {
      {"use_dora", "DoRA is not supported"},
      {"modules_to_save", "modules trained whole are not supported"},
      {"lora_bias", "biases of lora_B are not supported"},
      {"fan_in_fan_out", "transposed weights are not supported"},
      {"layer_replication", "repeated layers are not supported"},
      {"trainable_token_indices", "trained embeddings are not supported"},
      {"alora_invocation_tokens", "activated LoRA is not supported"},
      {"use_qalora", "QALoRA is not supported"},
      {"use_bdlora", "block-diagonal LoRA is not supported"},
      {"arrow_config", "routing among adapters is not supported"},
  };
  for (const auto& [key, what] : unsupported)
    if (const auto at = root.find(key); at != root.end() && !is_off(*at))
      throw Error("{}: {}: {}: expected null, found {}", where, key, what, shown(*at));
  // These change the base model's weights before training; peft can convert such an adapter when it saves it.
  const Json start = root.value("init_lora_weights", Json(true));
  if (!start.is_string()) return;
  for (const char* method : {"pissa", "olora", "corda", "loftq"})
    if (start.get<std::string>().starts_with(method))
      throw Error("{}: init_lora_weights: an adapter of base weights that {} has changed is not supported: save it converted", where,
                  method);
}

double number(const Json& value, const std::string& where, const std::string& key) {
  if (!value.is_number() || !std::isfinite(value.get<double>()) || std::abs(value.get<double>()) > 1e9)
    throw Error("{}: {}: expected a number up to 1e9, found {}", where, key, shown(value));
  return value.get<double>();
}

}  // namespace

float AdapterConfig::scale_of(const std::string& module, int64_t rank) const {
  double own = alpha;
  Regex::Scratch scratch;
  Regex::Span ignored;
  for (const auto& [pattern, value] : alphas)
    if (pattern.find(module, 0, ignored, scratch)) {
      own = value;
      break;
    }
  return float(own / (root_scale ? std::sqrt(double(rank)) : double(rank)));
}

AdapterConfig parse_adapter_config(const std::string& json, const std::string& where) {
  Json root;
  try {
    root = Json::parse(json);
  } catch (const Json::exception& e) {
    throw Error("{}: expected JSON: {}", where, e.what());
  }
  if (!root.is_object()) throw Error("{}: expected a JSON object, found {}", where, shown(root));
  refuse(root, where);
  AdapterConfig config;
  config.alpha = number(root.value("lora_alpha", Json(8)), where, "lora_alpha");
  const Json root_scale = root.value("use_rslora", Json(false));
  if (!root_scale.is_boolean()) throw Error("{}: use_rslora: expected true or false, found {}", where, shown(root_scale));
  config.root_scale = root_scale;
  const Json alphas = root.value("alpha_pattern", Json::object());
  if (!alphas.is_object() && !alphas.is_null()) throw Error("{}: alpha_pattern: expected an object, found {}", where, shown(alphas));
  for (const auto& [pattern, value] : alphas.items())
    config.alphas.emplace_back(Regex("^(?:.*\\.)?(?:" + pattern + ")$", where + ": alpha_pattern"),
                               number(value, where, "alpha_pattern: " + pattern));
  return config;
}

}  // namespace hadal
