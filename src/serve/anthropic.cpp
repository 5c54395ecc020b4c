#include "serve/anthropic.h"

#include <nlohmann/json.hpp>

#include "model/prompt.h"
#include "serve/field.h"
#include "serve/openai.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

void add_line(std::string& text, const std::string& more) {
  if (!text.empty()) text += '\n';
  text += more;
}

// A string, or blocks of which all are text.
std::string text_of(const Field& content) {
  if (!content || content.is_text()) return content ? content.text() : "";
  if (!content.is_list()) content.fail("a string or a list of blocks");
  std::string text;
  for (const Field& block : content.items()) {
    if (block["type"].text() != "text") block.fail("a block of the type text");
    add_line(text, block["text"].text());
  }
  return text;
}

std::string tool_calls_of(const std::vector<Field>& uses) {
  Json calls = Json::array();
  for (const Field& use : uses) {
    const Field input = use["input"];
    if (!input.is_object()) input.fail("an object");
    calls.push_back(
        {{"id", use["id"].text()}, {"type", "function"}, {"function", {{"name", use["name"].text()}, {"arguments", input.json()}}}});
  }
  return calls.empty() ? "" : to_text(calls);
}

Message assistant_message(const Field& content) {
  Message message{.role = "assistant", .content = "", .reasoning = "", .tool_calls = "", .name = "", .tool_call_id = ""};
  std::vector<Field> uses;
  for (const Field& block : content.items()) {
    const std::string type = block["type"].text();
    if (type == "text")
      add_line(message.content, block["text"].text());
    else if (type == "thinking")
      add_line(message.reasoning, block["thinking"].text());
    else if (type == "tool_use")
      uses.push_back(block);
    else if (type != "redacted_thinking")
      block["type"].fail("text, thinking, redacted_thinking or tool_use");
  }
  message.tool_calls = tool_calls_of(uses);
  return message;
}

// Results of tools are messages of their own, before what the user says beside them.
void read_user_blocks(const Field& content, std::vector<Message>& messages) {
  Message said;
  said.role = "user";
  bool spoke = false;
  for (const Field& block : content.items()) {
    const std::string type = block["type"].text();
    if (type == "tool_result") {
      Message result;
      result.role = "tool";
      result.content = text_of(block["content"]);
      result.tool_call_id = block["tool_use_id"].text();
      messages.push_back(std::move(result));
    } else if (type == "text") {
      add_line(said.content, block["text"].text());
      spoke = true;
    } else {
      block["type"].fail("text or tool_result: this model reads nothing else");
    }
  }
  if (spoke) messages.push_back(std::move(said));
}

void read_messages(const Field& body, Call& call) {
  if (const Field system = body["system"]) {
    Message message;
    message.role = "system";
    message.content = text_of(system);
    if (!message.content.empty()) call.messages.push_back(std::move(message));
  }
  const Field list = body["messages"];
  if (list.size() == 0) list.fail("a list of at least one message");
  std::vector<Message> said;
  for (const Field& entry : list.items()) {
    const Field role = entry["role"], content = entry["content"];
    if (role.text() != "user" && role.text() != "assistant") role.fail("user or assistant");
    if (!content.is_text() && content.size() == 0) content.fail("a string or a list of at least one block");
    if (content.is_text())
      said.push_back({role.text(), content.text(), "", "", "", ""});
    else if (role.text() == "assistant")
      said.push_back(assistant_message(content));
    else
      read_user_blocks(content, said);
  }
  for (Message& message : said) {  // turns of the user that follow each other are one
    if (message.role == "user" && !call.messages.empty() && call.messages.back().role == "user")
      add_line(call.messages.back().content, message.content);
    else
      call.messages.push_back(std::move(message));
  }
  if (call.messages.back().role == "assistant" && call.messages.back().tool_calls.empty()) {
    call.reply_start = call.messages.back().content;
    call.messages.pop_back();
  }
  if (call.messages.empty()) list.fail("a message of the user");
}

void read_tools(const Field& body, Call& call) {
  if (const Field tools = body["tools"]) {
    Json list = Json::array();
    for (const Field& tool : tools.items()) {
      if (tool["type"] && tool["type"].text() != "custom") tool["type"].fail("custom: tools of the server's own are not there");
      const Field schema = tool["input_schema"];
      if (!schema.is_object()) schema.fail("a JSON schema");
      Json function{{"name", tool["name"].text()}};
      if (tool["description"]) function["description"] = tool["description"].text();
      function["parameters"] = Json::parse(schema.json());
      list.push_back({{"type", "function"}, {"function", std::move(function)}});
    }
    if (!list.empty()) call.tools = to_text(list);
  }
  if (const Field choice = body["tool_choice"]) {
    const std::string type = choice["type"].text();
    if (type == "auto" || type == "none")
      call.tool_choice = to_text(Json(type));
    else if (type == "any")
      call.tool_choice = to_text(Json("required"));
    else if (type == "tool")
      call.tool_choice = to_text(Json{{"type", "function"}, {"function", {{"name", choice["name"].text()}}}});
    else
      choice["type"].fail("auto, any, tool or none");
    bool one = false;
    choice["disable_parallel_tool_use"].read(one);
    call.parallel_tool_calls = !one;
  }
}

void read_conversation(const Field& body, Call& call) {
  body["model"].read(call.model);
  read_messages(body, call);
  read_tools(body, call);
  if (const Field thinking = body["thinking"]) {
    const std::string type = thinking["type"].text();
    if (type != "enabled" && type != "adaptive" && type != "disabled") thinking["type"].fail("enabled, adaptive or disabled");
    call.template_variables = thinking_variables(type == "disabled" ? "off" : "on");
  }
}

Call parse(const std::string& text, const Sampling& defaults) {
  const Field body = Field::of_body(text);
  Call call;
  call.sampling = defaults;
  read_limits(body, call);
  read_conversation(body, call);
  call.max_tokens = body["max_tokens"].integer(1, 1 << 30);
  body["temperature"].read(call.sampling.temperature, 0, 1);
  body["top_p"].read(call.sampling.top_p, 0, 1);
  body["top_k"].read(call.sampling.top_k, 0, 1 << 30);
  body["stream"].read(call.stream);
  if (const Field format = body["output_config"]["format"]) {
    if (format["type"].text() != "json_schema") format["type"].fail("json_schema");
    if (!format["schema"].is_object()) format["schema"].fail("a JSON schema");
    const Json schema{{"name", "reply"}, {"schema", Json::parse(format["schema"].json())}, {"strict", true}};
    call.response_format = to_text(Json{{"type", "json_schema"}, {"json_schema", schema}});
  }
  if (const Field stops = body["stop_sequences"]) {
    if (stops.size() > 16) stops.fail("up to 16 strings");
    for (const Field& stop : stops.items()) call.stops.push_back(stop.text());
  }
  return call;
}

const char* stop_reason(End end) {
  switch (end) {
    case End::length:
      return "max_tokens";
    case End::stop_text:
      return "stop_sequence";
    case End::tool_calls:
      return "tool_use";
    default:
      return "end_turn";
  }
}

Json ending_json(const Delta& last) {
  Json json{{"stop_reason", stop_reason(last.end)}, {"stop_sequence", nullptr}};
  if (last.end == End::stop_text) json["stop_sequence"] = last.stop;
  return json;
}

Json usage_json(const Usage& usage) {
  return {{"input_tokens", usage.prompt - usage.cached},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", usage.cached},
          {"output_tokens", usage.reply}};
}

class Format : public ReplyFormat {
 public:
  explicit Format(ReplyContext context) : context_(std::move(context)), id_(new_id("msg_")) {}

  std::string begin(const Usage& usage) override {
    Json message = head();
    message["content"] = Json::array();
    message["stop_reason"] = nullptr, message["stop_sequence"] = nullptr;
    message["usage"] = usage_json(usage);
    return event("message_start", {{"message", std::move(message)}}) + event("ping", Json::object());
  }

  std::string progress(int64_t, const Usage&) override { return event("ping", Json::object()); }

  std::string delta(const Delta& delta) override {
    std::string events;
    if (!delta.reasoning.empty()) {
      events += enter(Kind::thinking, {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}});
      events += block_delta({{"type", "thinking_delta"}, {"thinking", delta.reasoning}});
    }
    if (!delta.text.empty()) {
      events += enter(Kind::text, {{"type", "text"}, {"text", ""}});
      events += block_delta({{"type", "text_delta"}, {"text", delta.text}});
    }
    for (const ToolCallPiece& piece : delta.tool_calls) {
      if (kind_ == Kind::tool && piece.index != call_) events += leave();
      call_ = piece.index;
      events += enter(Kind::tool, {{"type", "tool_use"}, {"id", piece.id}, {"name", piece.name}, {"input", Json::object()}});
      if (!piece.arguments.empty()) events += block_delta({{"type", "input_json_delta"}, {"partial_json", piece.arguments}});
    }
    if (delta.end == End::none) return events;
    ending_ = ending_json(delta);
    return events + leave();
  }

  std::string end(const Usage& usage) override {
    return event("message_delta", {{"delta", ending_}, {"usage", usage_json(usage)}}) + event("message_stop", Json::object());
  }

  std::string failure(const std::string& error) override { return "event: error\ndata: " + error + "\n\n"; }

  std::string whole(const std::vector<Delta>& choices, const Usage& usage) override {
    const Delta& said = choices[0];
    Json message = head(), content = Json::array();
    if (!said.reasoning.empty()) content.push_back({{"type", "thinking"}, {"thinking", said.reasoning}, {"signature", ""}});
    if (!said.text.empty()) content.push_back({{"type", "text"}, {"text", said.text}});
    for (const ToolCallPiece& call : said.tool_calls) {
      Json input = Json::parse(call.arguments, nullptr, false);
      if (!input.is_object()) input = Json::object();  // the model was cut off
      content.push_back({{"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", std::move(input)}});
    }
    message["content"] = std::move(content);
    message.update(ending_json(said));
    message["usage"] = usage_json(usage);
    return to_text(message);
  }

 private:
  enum class Kind { none, thinking, text, tool };

  Json head() const { return {{"id", id_}, {"type", "message"}, {"role", "assistant"}, {"model", context_.model}}; }

  static std::string event(const char* name, const Json& more) {
    Json data{{"type", name}};
    data.update(more);
    return sse(name, data);
  }

  std::string enter(Kind kind, const Json& block) {
    if (kind_ == kind) return "";
    const std::string left = leave();
    kind_ = kind;
    return left + event("content_block_start", {{"index", block_}, {"content_block", block}});
  }

  std::string block_delta(const Json& delta) const { return event("content_block_delta", {{"index", block_}, {"delta", delta}}); }

  std::string leave() {
    if (kind_ == Kind::none) return "";
    kind_ = Kind::none;
    return event("content_block_stop", {{"index", block_++}});
  }

  const ReplyContext context_;
  const std::string id_;
  Kind kind_ = Kind::none;  // of the block that is open
  int64_t block_ = 0;       // its index, or the next one's
  int64_t call_ = 0;        // which tool call it is
  Json ending_;
};

std::unique_ptr<ReplyFormat> format(const Call&, ReplyContext context) { return std::make_unique<Format>(std::move(context)); }

}  // namespace

const Dialect anthropic_messages{true, parse, format, anthropic_error};

std::string anthropic_error(const ApiError& error) {
  const auto type = [&] {
    switch (error.status) {
      case 401:
        return "authentication_error";
      case 403:
        return "permission_error";
      case 404:
        return "not_found_error";
      case 413:
        return "request_too_large";
      case 429:
        return "rate_limit_error";
      case 503:
        return "overloaded_error";
      default:
        return error.status >= 500 ? "api_error" : "invalid_request_error";
    }
  };
  return to_text(Json{{"type", "error"}, {"error", {{"type", type()}, {"message", error.what()}}}});
}

std::string error_json(const std::string& path, const ApiError& error) {
  return path.starts_with("/v1/messages") ? anthropic_error(error) : openai_error(error);
}

Call parse_count_call(const std::string& body) {
  Call call;
  read_conversation(Field::of_body(body), call);
  return call;
}

std::string count_json(int64_t tokens) { return to_text(Json{{"input_tokens", tokens}}); }

}  // namespace hadal
