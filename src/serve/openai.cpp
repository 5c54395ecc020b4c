#include "serve/openai.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "model/prompt.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

void read_stops(const Field& stop, std::vector<std::string>& stops) {
  if (!stop) return;
  if (stop.is_text()) return stops.push_back(stop.text());
  if (!stop.is_list() || stop.size() > 16) stop.fail("a string or up to 16 strings");
  for (const Field& one : stop.items()) stops.push_back(one.text());
}

void read_bias(const Field& bias, std::vector<std::pair<int32_t, float>>& out) {
  if (!bias) return;
  const char* expected = "an object of token ids with numbers from -100 to 100";
  if (!bias.is_object()) bias.fail(expected);
  for (const auto& [key, amount] : bias.entries()) {
    int32_t id = 0;
    const auto [end, problem] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (problem != std::errc() || end != key.data() + key.size()) bias.fail(expected);
    out.emplace_back(id, float(amount.number(-100, 100)));
  }
}

Message read_message(const Field& entry) {
  if (!entry.is_object()) entry.fail("an object with role and content");
  Message message;
  const Field role = entry["role"], content = entry["content"], calls = entry["tool_calls"];
  role.read(message.role);
  if (message.role == "developer") message.role = "system";
  if (message.role != "system" && message.role != "user" && message.role != "assistant" && message.role != "tool")
    role.fail("system, developer, user, assistant or tool");
  message.content = read_content(content);
  entry["reasoning_content"].read(message.reasoning);
  entry["name"].read(message.name);
  entry["tool_call_id"].read(message.tool_call_id);
  if (calls && !calls.is_list()) calls.fail("a list");
  for (const Field& call : calls ? calls.items() : std::vector<Field>{}) {
    if (!call.is_object()) call.fail("an object");
    const Field function = call["function"];
    if (!function.is_object()) (function ? function : call).fail("a function with name and arguments");
    if (!function["name"].is_text()) (function["name"] ? function["name"] : function).fail("a function with a name");
  }
  if (calls.size() > 0) message.tool_calls = calls.json();
  if (!content && message.tool_calls.empty()) content.fail("a string or a list of parts");
  return message;
}

Json model_object(const ModelEntry& model) {
  Json json{{"id", model.id}, {"object", "model"}, {"created", model.created}, {"owned_by", "hadal"}, {"max_model_len", model.context}};
  // And as Anthropic has it.
  json.update({{"type", "model"}, {"display_name", model.id}, {"created_at", fmt::format("{:%FT%TZ}", fmt::gmtime(model.created))}});
  if (!model.parent.empty()) json["parent"] = model.parent;
  return json;
}

}  // namespace

std::string new_id(const char* prefix) {
  static std::atomic<uint64_t> next{(uint64_t(std::random_device()()) << 32) | std::random_device()()};
  return fmt::format("{}{:016x}", prefix, next++);
}

std::string openai_error(const ApiError& error) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  const char* type = error.status >= 500 ? "server_error" : error.status == 429 ? "rate_limit_error" : "invalid_request_error";
  return to_text(
      Json{{"error", {{"message", error.what()}, {"type", type}, {"param", or_null(error.parameter)}, {"code", or_null(error.code)}}}});
}

void read_limits(const Field& body, Call& call) {
  body["timeout"].read(call.timeout, 0.001, 1e6);
  body["priority"].read(call.priority, -100, 100);
}

void read_sampling(const Field& body, const Sampling& defaults, Call& call) {
  read_limits(body, call);
  call.sampling = defaults;
  body["model"].read(call.model);
  Sampling& s = call.sampling;
  body["temperature"].read(s.temperature, 0, 2);
  body["top_p"].read(s.top_p, 0, 1);
  body["top_k"].read(s.top_k, -1, 1 << 30);
  s.top_k = std::max(s.top_k, 0);
  body["min_p"].read(s.min_p, 0, 1);
  body["repetition_penalty"].read(s.repeat_penalty, 0.01, 100);
  body["presence_penalty"].read(s.presence_penalty, -2, 2);
  body["frequency_penalty"].read(s.frequency_penalty, -2, 2);
  if (const Field seed = body["seed"]) {
    call.seeded = true;
    s.seed = uint64_t(seed.integer(INT64_MIN, INT64_MAX));
  }
  read_bias(body["logit_bias"], s.logit_bias);
  read_stops(body["stop"], call.stops);
  body["stream"].read(call.stream);
}

void read_completion(const Field& body, const Sampling& defaults, Call& call) {
  read_sampling(body, defaults, call);
  body["max_tokens"].read(call.max_tokens, call.echo ? 0 : 1, 1 << 30);
  body["n"].read(call.choices, 1, 64);
  body["return_progress"].read(call.return_progress);
  const Field options = body["stream_options"];
  if (options && !options.is_object()) options.fail("an object");
  options["include_usage"].read(call.include_usage);
}

void read_forms(const Field& body, Call& call) {
  if (const Field format = body["response_format"]) {
    const std::string type = format["type"].text();
    if (type != "text" && type != "json_object" && type != "json_schema") format["type"].fail("text, json_object or json_schema");
    if (type != "text") call.response_format = format.json();
  }
  if (const Field schema = body["guided_json"]) {
    if (call.response_format.size() > 0) schema.fail("no response_format beside it");
    const std::string text = schema.is_text() ? Field::of_body(R"({"schema":)" + schema.text() + "}")["schema"].json() : schema.json();
    call.response_format = R"({"type":"json_schema","json_schema":{"schema":)" + text + "}}";
  }
  body["guided_regex"].read(call.guided_regex);
  body["guided_grammar"].read(call.guided_grammar);
  if (const Field choice = body["guided_choice"]) {
    for (const Field& one : choice.items()) one.text();
    call.guided_choice = choice.json();
  }
}

std::vector<Message> read_messages(const Field& body) {
  const Field list = body["messages"];
  if (list.size() == 0) list.fail("a list of at least one message");
  std::vector<Message> messages;
  for (const Field& entry : list.items()) messages.push_back(read_message(entry));
  return messages;
}

std::string read_content(const Field& content) {
  if (!content) return "";
  if (content.is_text()) return content.text();
  if (!content.is_list()) content.fail("a string or a list of parts");
  std::string text;
  for (const Field& part : content.items()) {
    const Field type = part["type"];
    if (!type.is_text() || type.text() != "text") part.fail("a part of the type text: this model reads nothing else");
    text += part["text"].text();
  }
  return text;
}

void read_effort(const Field& effort, Call& call) {
  if (effort) call.template_variables = thinking_variables(effort.text() == "none" ? "off" : "on");
}

std::vector<TextOrTokens> read_prompts(const Field& prompt, size_t most) {
  const std::string expected = fmt::format("a string, token ids, or a list of up to {} of either", most);
  std::vector<TextOrTokens> prompts;
  const auto add = [&](const Field& one) {
    if (one.is_text())
      prompts.emplace_back(one.text());
    else if (one.is_list())
      prompts.emplace_back(one.tokens());
    else
      prompt.fail(expected);
  };
  if (!prompt.is_list()) {
    add(prompt);
  } else if (prompt.size() > 0 && prompt.first().is_token()) {
    add(prompt);
  } else {
    if (prompt.size() == 0 || prompt.size() > most) prompt.fail(expected);
    for (const Field& one : prompt.items()) add(one);
  }
  return prompts;
}

const char* openai_finish(End end) {
  switch (end) {
    case End::none:
      return nullptr;
    case End::length:
      return "length";
    case End::tool_calls:
      return "tool_calls";
    default:
      return "stop";
  }
}

std::string logprobs_json(const std::vector<std::vector<Logprob>>& logprobs, const Tokenizer& tokenizer) {
  const auto token_json = [&](const Logprob& l) -> Json {
    const std::string_view bytes = tokenizer.bytes(l.token);
    Json list = Json::array();
    for (const char byte : bytes) list.push_back(uint8_t(byte));
    return {{"token", bytes}, {"logprob", l.logprob}, {"bytes", std::move(list)}};
  };
  Json json = Json::array();
  for (const std::vector<Logprob>& of : logprobs) {
    Json entry = token_json(of[0]);
    entry["top_logprobs"] = Json::array();
    for (size_t i = 1; i < of.size(); ++i) entry["top_logprobs"].push_back(token_json(of[i]));
    json.push_back(std::move(entry));
  }
  return to_text(json);
}

TokenizeCall parse_tokenize_call(const std::string& body) {
  const Field json = Field::of_body(body);
  const Field prompt = json["prompt"];
  TokenizeCall call{prompt ? prompt.text() : json["content"].text()};
  json["add_special_tokens"].read(call.add_special_tokens);
  return call;
}

std::vector<int32_t> parse_tokens(const std::string& body) { return Field::of_body(body)["tokens"].tokens(); }

std::vector<std::string> names_in(const std::string& text) try {
  const Field body = Field::of_body(text);
  std::vector<std::string> names;
  for (const char* key : {"model", "base_model_name", "lora_name"})
    if (body[key].is_text()) names.push_back(body[key].text());
  return names;
} catch (const ApiError&) {  // whoever reads the body in earnest says so
  return {};
}

AdapterCall parse_adapter_call(const std::string& text) {
  const Field body = Field::of_body(text);
  const std::string name = body["lora_name"].text();
  if (name.empty() || name.size() > 200) body["lora_name"].fail("a name of 1 to 200 bytes");
  AdapterCall call{name, ""};
  body["lora_path"].read(call.path);
  return call;
}

EmbeddingCall parse_embedding_call(const std::string& text) {
  const Field body = Field::of_body(text);
  EmbeddingCall call;
  body["model"].read(call.model);
  call.inputs = read_prompts(body["input"], 2048);
  std::string encoding = "float";
  body["encoding_format"].read(encoding);
  if (encoding != "float" && encoding != "base64") body["encoding_format"].fail("float or base64");
  call.base64 = encoding == "base64";
  body["dimensions"].read(call.dimensions, 1, 1 << 30);
  body["timeout"].read(call.timeout, 0.001, 1e6);
  return call;
}

std::string model_json(const ModelEntry& model) { return to_text(model_object(model)); }

std::string models_json(const std::vector<ModelEntry>& models) {
  Json list = Json::array();
  for (const ModelEntry& model : models) list.push_back(model_object(model));
  return to_text(Json{
      {"object", "list"}, {"data", std::move(list)}, {"has_more", false}, {"first_id", models.front().id}, {"last_id", models.back().id}});
}

}  // namespace hadal
