#include "serve/openai.h"

#include <charconv>
#include <nlohmann/json.hpp>

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json parse_body(const std::string& body) {
  static constexpr int deepest = 64;  // what is deeper would be written with as deep a recursion
  const auto shallow = [](int depth, Json::parse_event_t, Json&) {
    if (depth > deepest) throw ApiError(400, fmt::format("the body: nested deeper than {}", deepest));
    return true;
  };
  Json json = Json::parse(body, shallow, false);
  if (json.is_discarded()) throw ApiError(400, "the body is not JSON");
  if (!json.is_object()) throw ApiError(400, fmt::format("the body: expected a JSON object, found {}", json.type_name()));
  return json;
}

// Reads fields of one object; null counts as absent, as the original interface has it.
class Fields {
 public:
  explicit Fields(const Json& json, std::string path = "") : json_(json), path_(std::move(path)) {}

  const Json* find(const char* key) const {
    const auto at = json_.find(key);
    return at == json_.end() || at->is_null() ? nullptr : &*at;
  }
  [[noreturn]] void fail(const char* key, const std::string& expected, const Json* found) const {
    std::string text = found ? dump(*found) : "nothing";
    if (text.size() > 80) text = text.substr(0, 77) + "...";
    throw ApiError(400, fmt::format("{}{}: expected {}, found {}", path_, key, expected, text), path_ + key);
  }
  template <class T>
  void number(const char* key, T& field, double least, double most) const {
    const Json* value = find(key);
    if (!value) return;
    const bool fits = std::is_integral_v<T> ? value->is_number_integer() : value->is_number();
    if (!fits || !(value->get<double>() >= least && value->get<double>() <= most))
      fail(key, fmt::format("{} from {} to {}", std::is_integral_v<T> ? "an integer" : "a number", least, most), value);
    field = value->get<T>();
  }
  void flag(const char* key, bool& field) const {
    if (const Json* value = find(key)) {
      if (!value->is_boolean()) fail(key, "true or false", value);
      field = value->get<bool>();
    }
  }
  void text(const char* key, std::string& field) const {
    if (const Json* value = find(key)) {
      if (!value->is_string()) fail(key, "a string", value);
      field = value->get<std::string>();
    }
  }

 private:
  const Json& json_;
  std::string path_;
};

void read_stops(const Fields& fields, std::vector<std::string>& stops) {
  const Json* value = fields.find("stop");
  if (!value) return;
  if (value->is_string()) return stops.push_back(value->get<std::string>());
  if (!value->is_array() || value->size() > 16) fields.fail("stop", "a string or up to 16 strings", value);
  for (const Json& stop : *value) {
    if (!stop.is_string()) fields.fail("stop", "a string or up to 16 strings", value);
    stops.push_back(stop.get<std::string>());
  }
}

void read_bias(const Fields& fields, std::vector<std::pair<int32_t, float>>& bias) {
  const Json* value = fields.find("logit_bias");
  if (!value) return;
  const char* expected = "an object of token ids with numbers from -100 to 100";
  if (!value->is_object()) fields.fail("logit_bias", expected, value);
  for (const auto& [key, amount] : value->items()) {
    int32_t id = 0;
    const auto [end, problem] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (problem != std::errc() || end != key.data() + key.size() || !amount.is_number() || std::abs(amount.get<double>()) > 100)
      fields.fail("logit_bias", expected, value);
    bias.emplace_back(id, amount.get<float>());
  }
}

void refuse(const Fields& fields, const char* key, const char* what) {
  if (const Json* value = fields.find(key); value && !value->empty())
    throw ApiError(400, fmt::format("{}: {} are not supported yet", key, what), key, "unsupported_parameter");
}

void read_common(const Fields& fields, const Sampling& defaults, CompletionCall& call) {
  call.sampling = defaults;
  fields.text("model", call.model);
  Sampling& s = call.sampling;
  fields.number("temperature", s.temperature, 0, 2);
  fields.number("top_p", s.top_p, 0, 1);
  fields.number("top_k", s.top_k, -1, 1 << 30);
  s.top_k = std::max(s.top_k, 0);
  fields.number("min_p", s.min_p, 0, 1);
  fields.number("repetition_penalty", s.repeat_penalty, 0.01, 100);
  fields.number("presence_penalty", s.presence_penalty, -2, 2);
  fields.number("frequency_penalty", s.frequency_penalty, -2, 2);
  int64_t seed = 0;
  fields.number("seed", seed, -0x1p63, 0x1p63);
  call.seeded = fields.find("seed") != nullptr;
  if (call.seeded) s.seed = uint64_t(seed);
  read_bias(fields, s.logit_bias);
  fields.number("max_tokens", call.max_tokens, 1, 1 << 30);
  fields.number("n", call.choices, 1, 64);
  read_stops(fields, call.stops);
  fields.flag("stream", call.stream);
  if (const Json* options = fields.find("stream_options")) {
    if (!options->is_object()) fields.fail("stream_options", "an object", options);
    Fields(*options, "stream_options.").flag("include_usage", call.include_usage);
  }
}

// A string, or parts of which all are text.
std::string content_of(const Fields& fields) {
  const Json* content = fields.find("content");
  if (!content) return "";
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) fields.fail("content", "a string or a list of parts", content);
  std::string text;
  for (const Json& part : *content) {
    if (!part.is_object() || part.value("type", Json()) != "text" || !part.contains("text") || !part["text"].is_string())
      fields.fail("content", "parts of the type text: this model reads nothing else", &part);
    text += part["text"].get<std::string>();
  }
  return text;
}

std::vector<Message> messages_of(const Json& json) {
  const Fields outer(json);
  const Json* list = outer.find("messages");
  if (!list || !list->is_array() || list->empty()) outer.fail("messages", "a list of at least one message", list);
  std::vector<Message> messages;
  for (size_t i = 0; i < list->size(); ++i) {
    const Json& entry = (*list)[i];
    if (!entry.is_object()) outer.fail("messages", "objects with role and content", &entry);
    const Fields fields(entry, fmt::format("messages[{}].", i));
    Message message;
    fields.text("role", message.role);
    if (message.role == "developer") message.role = "system";
    if (message.role != "system" && message.role != "user" && message.role != "assistant" && message.role != "tool")
      fields.fail("role", "system, developer, user, assistant or tool", fields.find("role"));
    message.content = content_of(fields);
    fields.text("reasoning_content", message.reasoning);
    fields.text("name", message.name);
    fields.text("tool_call_id", message.tool_call_id);
    if (const Json* calls = fields.find("tool_calls"); calls && !calls->empty()) {
      if (!calls->is_array()) fields.fail("tool_calls", "a list", calls);
      message.tool_calls = dump(*calls);
    }
    if (!fields.find("content") && message.tool_calls.empty()) fields.fail("content", "a string or a list of parts", nullptr);
    messages.push_back(std::move(message));
  }
  return messages;
}

bool is_token(const Json& value) { return value.is_number_integer() && value.get<double>() >= 0 && value.get<double>() <= INT32_MAX; }

std::vector<int32_t> tokens_of(const Json& list, const char* key) {
  std::vector<int32_t> tokens;
  for (const Json& token : list) {
    if (!is_token(token)) throw ApiError(400, fmt::format("{}: expected token ids, found {}", key, dump(token).substr(0, 80)), key);
    tokens.push_back(token.get<int32_t>());
  }
  return tokens;
}

Json entry_of(const Logprob& l, const Tokenizer& tokenizer) {
  const std::string_view bytes = tokenizer.bytes(l.token);
  Json list = Json::array();
  for (const char byte : bytes) list.push_back(uint8_t(byte));
  return {{"token", bytes}, {"logprob", l.logprob}, {"bytes", std::move(list)}};
}

Json logprobs_json(bool chat, const Delta& delta, const Tokenizer& tokenizer) {
  if (delta.logprobs.empty()) return nullptr;
  if (!chat) {
    Json out{{"tokens", Json::array()}, {"token_logprobs", Json::array()}, {"top_logprobs", Json::array()}};
    for (const std::vector<Logprob>& of : delta.logprobs) {
      out["tokens"].push_back(tokenizer.bytes(of[0].token));
      out["token_logprobs"].push_back(of[0].logprob);
      Json top = Json::object();
      for (size_t i = 1; i < of.size(); ++i) top[std::string(tokenizer.bytes(of[i].token))] = of[i].logprob;
      out["top_logprobs"].push_back(std::move(top));
    }
    return out;
  }
  Json content = Json::array();
  for (const std::vector<Logprob>& of : delta.logprobs) {
    Json entry = entry_of(of[0], tokenizer);
    entry["top_logprobs"] = Json::array();
    for (size_t i = 1; i < of.size(); ++i) entry["top_logprobs"].push_back(entry_of(of[i], tokenizer));
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}};
}

Json head_json(const ReplyHead& head, const char* chat_object) {
  return {{"id", head.id}, {"object", head.chat ? chat_object : "text_completion"}, {"created", head.created}, {"model", head.model}};
}

Json usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt}, {"completion_tokens", usage.reply}, {"total_tokens", usage.prompt + usage.reply}};
}

Json finish_json(const char* finish) { return finish ? Json(finish) : Json(); }

}  // namespace

ApiError::ApiError(int s, std::string message, std::string p, std::string c)
    : Error("{}", message), status(s), parameter(std::move(p)), code(std::move(c)) {}

std::string ApiError::json() const {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  return dump({{"error",
                {{"message", what()},
                 {"type", status >= 500   ? "server_error"
                          : status == 429 ? "rate_limit_error"
                                          : "invalid_request_error"},
                 {"param", or_null(parameter)},
                 {"code", or_null(code)}}}});
}

ChatCall parse_chat_call(const std::string& body, const Sampling& defaults) {
  const Json json = parse_body(body);
  const Fields fields(json);
  ChatCall call;
  call.messages = messages_of(json);
  read_common(fields, defaults, call);
  fields.number("max_completion_tokens", call.max_tokens, 1, 1 << 30);
  bool logprobs = false;
  fields.flag("logprobs", logprobs);
  if (logprobs) call.logprobs = 0;
  if (fields.find("top_logprobs") && !logprobs) fields.fail("top_logprobs", "logprobs: true beside it", fields.find("top_logprobs"));
  fields.number("top_logprobs", call.logprobs, 0, 20);
  refuse(fields, "tools", "tools");
  if (const Json* format = fields.find("response_format"); format && (!format->is_object() || format->value("type", Json()) != "text"))
    throw ApiError(400, "response_format: formats other than text are not supported yet", "response_format", "unsupported_parameter");
  if (const Json* variables = fields.find("chat_template_kwargs")) {
    if (!variables->is_object()) fields.fail("chat_template_kwargs", "an object", variables);
    call.template_variables = dump(*variables);
  }
  return call;
}

TextCall parse_text_call(const std::string& body, const Sampling& defaults) {
  const Json json = parse_body(body);
  const Fields fields(json);
  TextCall call;
  read_common(fields, defaults, call);
  if (!fields.find("max_tokens")) call.max_tokens = 16;  // as the original has it
  fields.number("logprobs", call.logprobs, 0, 20);
  fields.flag("echo", call.echo);
  refuse(fields, "suffix", "suffixes");
  const Json* prompt = fields.find("prompt");
  const char* expected = "a string, token ids, or a list of up to 256 of either";
  const auto add = [&](const Json& one) {
    if (one.is_string()) return call.prompts.emplace_back(one.get<std::string>()), void();
    if (!one.is_array()) fields.fail("prompt", expected, prompt);
    call.prompts.emplace_back(tokens_of(one, "prompt"));
  };
  if (!prompt) fields.fail("prompt", expected, prompt);
  if (!prompt->is_array() || (!prompt->empty() && is_token(prompt->front()))) {
    add(*prompt);
  } else {
    if (prompt->empty() || prompt->size() > 256) fields.fail("prompt", expected, prompt);
    for (const Json& one : *prompt) add(one);
  }
  return call;
}

std::vector<Message> parse_messages(const std::string& body) { return messages_of(parse_body(body)); }

std::string parse_text(const std::string& body) {
  const Json json = parse_body(body);
  const Fields fields(json);
  const char* key = fields.find("prompt") ? "prompt" : "content";
  if (!fields.find(key)) fields.fail("content", "a string", nullptr);
  std::string text;
  fields.text(key, text);
  return text;
}

std::vector<int32_t> parse_tokens(const std::string& body) {
  const Json json = parse_body(body);
  const Fields fields(json);
  const Json* tokens = fields.find("tokens");
  if (!tokens || !tokens->is_array()) fields.fail("tokens", "a list of token ids", tokens);
  return tokens_of(*tokens, "tokens");
}

std::string chunk_json(const ReplyHead& head, const Delta& delta, const Tokenizer& tokenizer, bool null_usage) {
  Json json = head_json(head, "chat.completion.chunk");
  Json choice{{"index", delta.choice}};
  if (head.chat) {
    Json& what = choice["delta"] = Json::object();
    if (delta.first) what["role"] = "assistant";
    if (!delta.reasoning.empty()) what["reasoning_content"] = delta.reasoning;
    if (!delta.text.empty() || delta.first) what["content"] = delta.text;
  } else {
    choice["text"] = delta.text;
  }
  choice["logprobs"] = logprobs_json(head.chat, delta, tokenizer);
  choice["finish_reason"] = finish_json(delta.finish);
  json["choices"] = Json::array({std::move(choice)});
  if (null_usage) json["usage"] = nullptr;
  return dump(json);
}

std::string usage_chunk_json(const ReplyHead& head, const Usage& usage) {
  Json json = head_json(head, "chat.completion.chunk");
  json["choices"] = Json::array();
  json["usage"] = usage_json(usage);
  return dump(json);
}

std::string whole_json(const ReplyHead& head, const std::vector<Delta>& choices, const Usage& usage, const Tokenizer& tokenizer) {
  Json json = head_json(head, "chat.completion");
  json["choices"] = Json::array();
  for (const Delta& of : choices) {
    Json choice{{"index", of.choice}};
    if (head.chat) {
      choice["message"] = {{"role", "assistant"}, {"content", of.text}};
      if (!of.reasoning.empty()) choice["message"]["reasoning_content"] = of.reasoning;
    } else {
      choice["text"] = of.text;
    }
    choice["logprobs"] = logprobs_json(head.chat, of, tokenizer);
    choice["finish_reason"] = finish_json(of.finish);
    json["choices"].push_back(std::move(choice));
  }
  json["usage"] = usage_json(usage);
  return dump(json);
}

namespace {
Json model_object(const std::string& id, int64_t created, int64_t context) {
  return {{"id", id}, {"object", "model"}, {"created", created}, {"owned_by", "hadal"}, {"max_model_len", context}};
}
}  // namespace

std::string model_json(const std::string& id, int64_t created, int64_t context) { return dump(model_object(id, created, context)); }

std::string models_json(const std::string& id, int64_t created, int64_t context) {
  return dump({{"object", "list"}, {"data", Json::array({model_object(id, created, context)})}});
}

}  // namespace hadal
