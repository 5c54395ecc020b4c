// POST /v1/responses. Nothing is stored: a conversation is given whole each time.
#include <nlohmann/json.hpp>

#include "serve/openai.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

// A string, or parts of which all are text.
std::string text_of(const Field& content) {
  if (content.is_text()) return content.text();
  if (!content.is_list()) content.fail("a string or a list of parts");
  std::string text;
  for (const Field& part : content.items()) {
    const std::string type = part["type"].text();
    if (type != "input_text" && type != "output_text" && type != "text" && type != "reasoning_text" && type != "summary_text")
      part["type"].fail("input_text or output_text: this model reads nothing else");
    text += part["text"].text();
  }
  return text;
}

// Reasoning, what was said and calls of tools are items of their own; a turn of the assistant holds them all.
Message& assistant_turn(std::vector<Message>& messages, bool fits) {
  if (messages.empty() || messages.back().role != "assistant" || !fits) {
    messages.emplace_back();
    messages.back().role = "assistant";
  }
  return messages.back();
}

void read_item(const Field& item, std::vector<Message>& messages) {
  const std::string type = item["type"] ? item["type"].text() : "message";
  const bool silent = !messages.empty() && messages.back().content.empty() && messages.back().tool_calls.empty();
  if (type == "message") {
    const Field role = item["role"];
    std::string who = role.text();
    if (who == "developer") who = "system";
    if (who != "system" && who != "user" && who != "assistant") role.fail("system, developer, user or assistant");
    if (who == "assistant")
      assistant_turn(messages, silent).content = text_of(item["content"]);
    else
      messages.push_back({who, text_of(item["content"]), "", "", "", ""});
  } else if (type == "reasoning") {
    std::string& reasoning = assistant_turn(messages, silent).reasoning;
    const Field content = item["content"].size() > 0 ? item["content"] : item["summary"];
    if (content) reasoning += text_of(content);
  } else if (type == "function_call") {
    Message& turn = assistant_turn(messages, true);
    Json calls = turn.tool_calls.empty() ? Json::array() : Json::parse(turn.tool_calls);
    calls.push_back({{"id", item["call_id"].text()},
                     {"type", "function"},
                     {"function", {{"name", item["name"].text()}, {"arguments", item["arguments"].text()}}}});
    turn.tool_calls = to_text(calls);
  } else if (type == "function_call_output") {
    Message result;
    result.role = "tool";
    result.content = text_of(item["output"]);
    result.tool_call_id = item["call_id"].text();
    messages.push_back(std::move(result));
  } else {
    item["type"].fail("message, reasoning, function_call or function_call_output");
  }
}

void read_input(const Field& body, std::vector<Message>& messages) {
  if (const Field instructions = body["instructions"]) messages.push_back({"system", instructions.text(), "", "", "", ""});
  const Field input = body["input"];
  if (input.is_text()) return messages.push_back({"user", input.text(), "", "", "", ""});
  if (input.size() == 0) input.fail("a string or a list of at least one item");
  for (const Field& item : input.items()) {
    if (!item.is_object()) item.fail("an object");
    read_item(item, messages);
  }
}

void read_tools(const Field& body, Call& call) {
  if (const Field tools = body["tools"]) {
    Json list = Json::array();
    for (const Field& tool : tools.items()) {
      if (tool["type"].text() != "function") tool["type"].fail("function: tools of the server's own are not there");
      Json function{{"name", tool["name"].text()}};
      if (tool["description"]) function["description"] = tool["description"].text();
      if (tool["parameters"]) function["parameters"] = Json::parse(tool["parameters"].json());
      if (tool["strict"]) function["strict"] = tool["strict"].flag();
      list.push_back({{"type", "function"}, {"function", std::move(function)}});
    }
    if (!list.empty()) call.tools = to_text(list);
  }
  if (const Field choice = body["tool_choice"]) {
    if (choice.is_object()) {
      if (choice["type"].text() != "function") choice["type"].fail("function");
      call.tool_choice = to_text(Json{{"type", "function"}, {"function", {{"name", choice["name"].text()}}}});
    } else {
      const std::string word = choice.text();
      if (word != "auto" && word != "none" && word != "required") choice.fail("auto, none, required or a function");
      call.tool_choice = choice.json();
    }
  }
  body["parallel_tool_calls"].read(call.parallel_tool_calls);
}

void read_format(const Field& format, Call& call) {
  if (!format) return;
  const std::string type = format["type"].text();
  if (type == "text") return;
  Json json{{"type", type}};
  if (type == "json_schema") {
    const Field schema = format["schema"];
    if (!schema.is_object()) schema.fail("a JSON schema");
    json["json_schema"] = {{"name", format["name"].text()}, {"schema", Json::parse(schema.json())}};
    bool strict = false;
    format["strict"].read(strict);
    json["json_schema"]["strict"] = strict;
  } else if (type != "json_object") {
    format["type"].fail("text, json_object or json_schema");
  }
  call.response_format = to_text(json);
}

void refuse(const Field& field, const char* why) {
  if (field) throw ApiError(400, fmt::format("{}: {}", field.path(), why), field.path(), "unsupported_parameter");
}

Call parse(const std::string& text, const Sampling& defaults) {
  const Field body = Field::of_body(text);
  Call call;
  refuse(body["previous_response_id"], "this server keeps no responses: give the whole conversation as input");
  refuse(body["conversation"], "this server keeps no conversations: give the whole conversation as input");
  refuse(body["prompt"], "this server keeps no prompts: give the whole conversation as input");
  bool background = false;
  body["background"].read(background);
  if (background) refuse(body["background"], "this server keeps no responses: ask for a stream");
  read_input(body, call.messages);
  read_sampling(body, defaults, call);
  body["max_output_tokens"].read(call.max_tokens, 1, 1 << 30);
  if (const Field include = body["include"])
    for (const Field& what : include.items())
      if (what.text() == "message.output_text.logprobs") call.logprobs = 0;
  if (call.logprobs == 0) body["top_logprobs"].read(call.logprobs, 0, 20);
  read_tools(body, call);
  read_format(body["text"]["format"], call);
  read_effort(body["reasoning"]["effort"], call);
  return call;
}

class Format : public ReplyFormat {
 public:
  Format(const Call& call, ReplyContext context) : context_(std::move(context)), id_(new_id("resp_")) {
    const auto json_or = [](const std::string& text, Json otherwise) { return text.empty() ? std::move(otherwise) : Json::parse(text); };
    settings_ = {{"parallel_tool_calls", call.parallel_tool_calls},
                 {"temperature", call.sampling.temperature},
                 {"top_p", call.sampling.top_p},
                 {"tool_choice", json_or(call.tool_choice, "auto")},
                 {"tools", Json::array()},
                 {"max_output_tokens", call.max_tokens > 0 ? Json(call.max_tokens) : Json()},
                 {"previous_response_id", nullptr},
                 {"store", false},
                 {"truncation", "disabled"},
                 {"text", {{"format", json_or(call.response_format, {{"type", "text"}})}}},
                 {"metadata", Json::object()}};
    if (settings_["tool_choice"].is_object())
      settings_["tool_choice"] = {{"type", "function"}, {"name", settings_["tool_choice"]["function"]["name"]}};
    for (const Json& tool : json_or(call.tools, Json::array())) {
      Json flat{{"type", "function"}};
      flat.update(tool["function"]);
      if (!flat.contains("parameters")) flat["parameters"] = nullptr;
      if (!flat.contains("strict")) flat["strict"] = false;
      settings_["tools"].push_back(std::move(flat));
    }
    Json& format = settings_["text"]["format"];
    if (format.contains("json_schema")) {
      Json flat{{"type", "json_schema"}};
      flat.update(format["json_schema"]);
      format = std::move(flat);
    }
  }

  std::string begin(const Usage&) override {
    const Json response = response_json("in_progress");
    std::string events = event("response.created", {{"response", response}});
    return events += event("response.in_progress", {{"response", response}});
  }

  std::string delta(const Delta& delta) override {
    std::string events;
    if (!delta.reasoning.empty()) {
      events += enter(Kind::reasoning, "rs_");
      item_text_ += delta.reasoning;
      events += item_event("response.reasoning_summary_text.delta", {{"summary_index", 0}, {"delta", delta.reasoning}});
    }
    if (!delta.text.empty() || (!delta.logprobs.empty() && kind_ == Kind::message)) {
      events += enter(Kind::message, "msg_");
      item_text_ += delta.text;
      Json logprobs = logprobs_of(delta);
      events += item_event("response.output_text.delta", {{"content_index", 0}, {"delta", delta.text}, {"logprobs", logprobs}});
      for (Json& entry : logprobs) item_logprobs_.push_back(std::move(entry));
    }
    for (const ToolCallPiece& piece : delta.tool_calls) {
      if (kind_ == Kind::call && piece.index != call_index_) events += leave("completed");
      call_index_ = piece.index;
      if (kind_ != Kind::call) call_id_ = piece.id, call_name_ = piece.name;
      events += enter(Kind::call, "fc_");
      item_text_ += piece.arguments;
      if (!piece.arguments.empty()) events += item_event("response.function_call_arguments.delta", {{"delta", piece.arguments}});
    }
    if (delta.end == End::none) return events;
    cut_off_ = delta.end == End::length;
    if (kind_ == Kind::none && output_.empty()) events += enter(Kind::message, "msg_");
    return events + leave(cut_off_ ? "incomplete" : "completed");
  }

  std::string end(const Usage& usage) override {
    Json response = response_json(cut_off_ ? "incomplete" : "completed");
    response["usage"] = usage_json(usage);
    return event(cut_off_ ? "response.incomplete" : "response.completed", {{"response", std::move(response)}});
  }

  std::string failure(const std::string& error) override { return "event: error\ndata: " + error + "\n\n"; }

  std::string whole(const std::vector<Delta>& choices, const Usage& usage) override {
    delta(choices[0]);  // the events' items are those of the whole
    Json response = response_json(cut_off_ ? "incomplete" : "completed");
    response["usage"] = usage_json(usage);
    return to_text(response);
  }

 private:
  enum class Kind { none, reasoning, message, call };

  Json response_json(const char* status) const {
    Json json{{"id", id_},
              {"object", "response"},
              {"created_at", context_.created},
              {"status", status},
              {"error", nullptr},
              {"model", context_.model},
              {"output", output_},
              {"incomplete_details", nullptr}};
    if (cut_off_) json["incomplete_details"] = {{"reason", "max_output_tokens"}};
    json.update(settings_);
    return json;
  }

  static Json usage_json(const Usage& usage) {
    return {{"input_tokens", usage.prompt},
            {"input_tokens_details", {{"cached_tokens", usage.cached}, {"cache_write_tokens", 0}}},
            {"output_tokens", usage.reply},
            {"output_tokens_details", {{"reasoning_tokens", usage.reasoning}}},
            {"total_tokens", usage.prompt + usage.reply}};
  }

  Json logprobs_of(const Delta& delta) const {
    return delta.logprobs.empty() ? Json::array() : Json::parse(logprobs_json(delta.logprobs, context_.tokenizer));
  }

  std::string event(const char* type, const Json& more) {
    Json data{{"type", type}, {"sequence_number", sequence_++}};
    data.update(more);
    return sse(type, data);
  }

  std::string item_event(const char* type, const Json& more) {
    Json data{{"item_id", item_id_}, {"output_index", output_.size()}};
    data.update(more);
    return event(type, data);
  }

  Json part_json() const {
    if (kind_ == Kind::reasoning) return {{"type", "summary_text"}, {"text", item_text_}};
    return {{"type", "output_text"}, {"text", item_text_}, {"annotations", Json::array()}, {"logprobs", item_logprobs_}};
  }

  // begun: with the part that it has then.
  Json item_json(const char* status, bool begun) const {
    const Json parts = begun ? Json::array({part_json()}) : Json::array();
    switch (kind_) {
      case Kind::reasoning:
        return {{"id", item_id_}, {"type", "reasoning"}, {"status", status}, {"summary", parts}};
      case Kind::call:
        return {{"id", item_id_},      {"type", "function_call"}, {"status", status},
                {"call_id", call_id_}, {"name", call_name_},      {"arguments", item_text_}};
      default:
        return {{"id", item_id_}, {"type", "message"}, {"status", status}, {"role", "assistant"}, {"content", parts}};
    }
  }

  std::string enter(Kind kind, const char* prefix) {
    if (kind_ == kind) return "";
    std::string events = leave("completed");
    kind_ = kind;
    item_id_ = new_id(prefix);
    item_text_.clear();
    item_logprobs_ = Json::array();
    events += event("response.output_item.added", {{"output_index", output_.size()}, {"item", item_json("in_progress", false)}});
    if (kind == Kind::reasoning)
      events += item_event("response.reasoning_summary_part.added", {{"summary_index", 0}, {"part", part_json()}});
    if (kind == Kind::message) events += item_event("response.content_part.added", {{"content_index", 0}, {"part", part_json()}});
    return events;
  }

  std::string leave(const char* status) {
    if (kind_ == Kind::none) return "";
    std::string events;
    if (kind_ == Kind::reasoning) {
      events += item_event("response.reasoning_summary_text.done", {{"summary_index", 0}, {"text", item_text_}});
      events += item_event("response.reasoning_summary_part.done", {{"summary_index", 0}, {"part", part_json()}});
    } else if (kind_ == Kind::message) {
      events += item_event("response.output_text.done", {{"content_index", 0}, {"text", item_text_}, {"logprobs", item_logprobs_}});
      events += item_event("response.content_part.done", {{"content_index", 0}, {"part", part_json()}});
    } else {
      events += item_event("response.function_call_arguments.done", {{"name", call_name_}, {"arguments", item_text_}});
    }
    Json item = item_json(status, true);
    events += event("response.output_item.done", {{"output_index", output_.size()}, {"item", item}});
    output_.push_back(std::move(item));
    kind_ = Kind::none;
    return events;
  }

  const ReplyContext context_;
  const std::string id_;
  Json settings_;                // of the call, as they are told back
  Json output_ = Json::array();  // items that are complete
  Kind kind_ = Kind::none;       // of the item that is open, and what it holds so far
  std::string item_id_, item_text_, call_id_, call_name_;
  Json item_logprobs_ = Json::array();
  int64_t call_index_ = 0, sequence_ = 0;
  bool cut_off_ = false;
};

std::unique_ptr<ReplyFormat> format(const Call& call, ReplyContext context) { return std::make_unique<Format>(call, std::move(context)); }

}  // namespace

const Dialect openai_responses{true, parse, format, openai_error};

}  // namespace hadal
