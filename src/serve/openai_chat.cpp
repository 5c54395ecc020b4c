// POST /v1/chat/completions.
#include <nlohmann/json.hpp>
#include <set>

#include "serve/openai.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

void read_tools(const Field& body, Call& call) {
  if (const Field tools = body["tools"]) {
    for (const Field& tool : tools.items()) {
      if (!tool["type"].is_text() || tool["type"].text() != "function") tool["type"].fail("function");
      tool["function"]["name"].text();
    }
    if (tools.size() > 0) call.tools = tools.json();
  }
  if (const Field choice = body["tool_choice"]) call.tool_choice = choice.json();
  body["parallel_tool_calls"].read(call.parallel_tool_calls);
}

Call parse(const std::string& text, const Sampling& defaults) {
  const Field body = Field::of_body(text);
  Call call;
  call.messages = read_messages(body);
  read_completion(body, defaults, call);
  bool goes_on = false;  // as vLLM has it
  body["continue_final_message"].read(goes_on);
  if (goes_on) {
    if (call.messages.size() < 2 || call.messages.back().role != "assistant")
      body["continue_final_message"].fail("a last message of the assistant, which goes on");
    call.reply_start = call.messages.back().content;
    call.messages.pop_back();
  }
  body["max_completion_tokens"].read(call.max_tokens, 1, 1 << 30);
  bool logprobs = false;
  body["logprobs"].read(logprobs);
  if (logprobs) call.logprobs = 0;
  const Field top = body["top_logprobs"];
  if (top && !logprobs) top.fail("logprobs: true beside it");
  top.read(call.logprobs, 0, 20);
  read_tools(body, call);
  read_forms(body, call);
  read_effort(body["reasoning_effort"], call);
  if (const Field variables = body["chat_template_kwargs"]) {
    if (!variables.is_object()) variables.fail("an object");
    call.template_variables = variables.json();
  }
  return call;
}

class Format : public ReplyFormat {
 public:
  Format(const Call& call, ReplyContext context)
      : context_(std::move(context)), id_(new_id("chatcmpl-")), include_usage_(call.include_usage), progress_(call.return_progress) {}

  std::string progress(int64_t read, const Usage& usage) override {
    if (!progress_) return "";
    Json json = head("chat.completion.chunk");
    json["choices"] = Json::array();
    json["prompt_progress"] = {{"total", usage.prompt}, {"cache", usage.cached}, {"processed", read}};
    return sse(json);
  }

  std::string delta(const Delta& delta) override {
    const bool first = begun_.insert(delta.choice).second;
    Json what = Json::object();
    if (first) what["role"] = "assistant";
    if (!delta.reasoning.empty()) what["reasoning_content"] = delta.reasoning;
    if (!delta.text.empty() || first) what["content"] = delta.text;
    for (const ToolCallPiece& piece : delta.tool_calls) {
      Json call{{"index", piece.index}};
      if (!piece.id.empty()) call["id"] = piece.id, call["type"] = "function";
      if (!piece.name.empty()) call["function"]["name"] = piece.name;
      call["function"]["arguments"] = piece.arguments;
      what["tool_calls"].push_back(std::move(call));
    }
    Json json = head("chat.completion.chunk");
    json["choices"] = Json::array({choice_json(delta, "delta", std::move(what))});
    if (include_usage_) json["usage"] = nullptr;
    return sse(json);
  }

  std::string end(const Usage& usage) override {
    std::string events;
    if (include_usage_) {
      Json json = head("chat.completion.chunk");
      json["choices"] = Json::array();
      json["usage"] = usage_json(usage);
      events = sse(json);
    }
    return events + "data: [DONE]\n\n";
  }

  std::string whole(const std::vector<Delta>& choices, const Usage& usage) override {
    Json json = head("chat.completion");
    json["choices"] = Json::array();
    for (const Delta& said : choices) {
      Json message{{"role", "assistant"}, {"content", said.text}};
      if (said.text.empty() && !said.tool_calls.empty()) message["content"] = nullptr;
      if (!said.reasoning.empty()) message["reasoning_content"] = said.reasoning;
      for (const ToolCallPiece& call : said.tool_calls)
        message["tool_calls"].push_back(
            {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
      json["choices"].push_back(choice_json(said, "message", std::move(message)));
    }
    json["usage"] = usage_json(usage);
    return to_text(json);
  }

 private:
  Json head(const char* object) const {
    return {{"id", id_}, {"object", object}, {"created", context_.created}, {"model", context_.model}};
  }

  Json choice_json(const Delta& delta, const char* key, Json what) const {
    Json choice{{"index", delta.choice}, {key, std::move(what)}, {"logprobs", logprobs_of(delta)}, {"finish_reason", nullptr}};
    if (const char* finish = openai_finish(delta.end)) choice["finish_reason"] = finish;
    return choice;
  }

  static Json usage_json(const Usage& usage) {
    return {{"prompt_tokens", usage.prompt},
            {"completion_tokens", usage.reply},
            {"total_tokens", usage.prompt + usage.reply},
            {"prompt_tokens_details", {{"cached_tokens", usage.cached}}},
            {"completion_tokens_details", {{"reasoning_tokens", usage.reasoning}}}};
  }

  Json logprobs_of(const Delta& delta) const {
    if (delta.logprobs.empty()) return nullptr;
    return {{"content", Json::parse(logprobs_json(delta.logprobs, context_.tokenizer))}};
  }

  const ReplyContext context_;
  const std::string id_;
  const bool include_usage_, progress_;
  std::set<int64_t> begun_;  // choices whose role has been told
};

std::unique_ptr<ReplyFormat> format(const Call& call, ReplyContext context) { return std::make_unique<Format>(call, std::move(context)); }

}  // namespace

const Dialect openai_chat{true, parse, format, openai_error};

}  // namespace hadal
