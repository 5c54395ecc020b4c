#include "model/tool_calls.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/json_schema.h"
#include "model/tokenizer.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

bool has_word(std::string_view text, std::string_view word) {
  const auto part = [](char c) { return std::isalnum(uint8_t(c)) != 0 || c == '_'; };
  for (size_t at = 0; (at = text.find(word, at)) != std::string_view::npos; ++at)
    if ((at == 0 || !part(text[at - 1])) && (at + word.size() == text.size() || !part(text[at + word.size()]))) return true;
  return false;
}

Json parse_list(const std::string& tools) {
  Json list = Json::parse(tools, nullptr, false);
  if (!list.is_array()) throw Error("tools: expected a list");
  return list;
}

const Json& function_of(const Json& tool) { return tool.contains("function") ? tool["function"] : tool; }

std::string example_of(CallStyle style) {
  switch (style) {
    case CallStyle::tagged_json:
      return "<tool_call>\n{\"name\": \"FUNCTION\", \"arguments\": {\"PARAMETER\": VALUE}}\n</tool_call>";
    case CallStyle::fenced_json:
      return "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>FUNCTION\n```json\n{\"PARAMETER\": VALUE}\n```"
             "<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    case CallStyle::plain_json:
      return "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>FUNCTION<｜tool▁sep｜>{\"PARAMETER\": "
             "VALUE}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    case CallStyle::parameters:
      return "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"FUNCTION\">\n<｜DSML｜parameter name=\"PARAMETER\" string=\"true\">TEXT"
             "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>";
  }
  return "";
}

std::string explanation(const Json& tools, CallStyle style) {
  std::string text = "You can call these functions. Each line is the JSON description of one:\n<tools>\n";
  for (const Json& tool : tools) text += dump(function_of(tool)) + "\n";
  return text + "</tools>\nTo call one, write nothing but this, with its name and its arguments as JSON:\n" + example_of(style);
}

// As the model would have written them: for templates that do not.
std::string calls_as_text(const std::string& tool_calls) {
  std::string text;
  const Json calls = Json::parse(tool_calls, nullptr, false);
  if (!calls.is_array()) return text;
  for (const Json& call : calls) {
    const Json& function = function_of(call);
    const Json arguments = function.value("arguments", Json("{}"));
    text += fmt::format("{}<tool_call>\n{{\"name\": {}, \"arguments\": {}}}\n</tool_call>", text.empty() ? "" : "\n",
                        dump(function.value("name", Json(""))), arguments.is_string() ? arguments.get<std::string>() : dump(arguments));
  }
  return text;
}

Json literal(const std::string& text) { return {{"type", "const_string"}, {"value", text}}; }

// A marker is one token where the tokenizer has it.
Json marker(const Tokenizer& tokenizer, const std::string& text) {
  if (const std::optional<int32_t> token = tokenizer.find(text)) return {{"type", "token"}, {"token", *token}};
  return literal(text);
}

Json sequence(Json elements) { return {{"type", "sequence"}, {"elements", std::move(elements)}}; }

Json arguments_form(const Json& function, bool as_tags) {
  const std::string name = function.at("name").get<std::string>();
  const Json parameters = function.value("parameters", Json());
  Json schema;
  try {
    schema = Json::parse(checked_json_schema(parameters.is_object() ? dump(parameters) : R"({"type": "object", "properties": {}})"));
  } catch (const Error& e) {
    throw Error("the parameters of the function {}: {}", name, e.what());
  }
  Json form{{"type", "json_schema"}, {"json_schema", std::move(schema)}, {"max_whitespace_cnt", 1}};
  if (as_tags) form["style"] = "deepseek_xml";
  return form;
}

Json one_call(CallStyle style, const Tokenizer& t, const Json& function, bool begun) {
  const std::string name = function.at("name").get<std::string>(), quoted = dump(Json(name));
  const Json arguments = arguments_form(function, style == CallStyle::parameters);
  Json parts = Json::array();
  switch (style) {
    case CallStyle::tagged_json:
      if (!begun) parts.push_back(marker(t, "<tool_call>"));
      parts.push_back(literal("\n{\"name\": " + quoted + ", \"arguments\": "));
      parts.push_back(arguments);
      parts.push_back(literal("}\n"));
      parts.push_back(marker(t, "</tool_call>"));
      break;
    case CallStyle::fenced_json:
      parts = {marker(t, "<｜tool▁call▁begin｜>"), literal("function"), marker(t, "<｜tool▁sep｜>"),
               literal(name + "\n```json\n"),      arguments,           literal("\n```"),
               marker(t, "<｜tool▁call▁end｜>")};
      break;
    case CallStyle::plain_json:
      parts = {marker(t, "<｜tool▁call▁begin｜>"), literal(name), marker(t, "<｜tool▁sep｜>"), arguments, marker(t, "<｜tool▁call▁end｜>")};
      break;
    case CallStyle::parameters:
      parts = {literal("<｜DSML｜invoke name=\"" + name + "\">\n"), arguments, literal("</｜DSML｜invoke>\n")};
      break;
  }
  return sequence(std::move(parts));
}

}  // namespace

ToolFormat tool_format(const std::string& source) {
  const auto has = [&](std::string_view text) { return source.find(text) != std::string::npos; };
  if (has("<function=")) throw Error("tools: this model's chat template writes calls in a way that is not known (<function=...>)");
  const bool explained = has_word(source, "tools"), replayed = has("tool_calls");
  if (has("｜DSML｜")) return {CallStyle::parameters, explained, replayed};
  if (has("<｜tool▁sep｜>")) return {has("```json") ? CallStyle::fenced_json : CallStyle::plain_json, explained, replayed};
  if (has("<tool_call>")) return {CallStyle::tagged_json, explained, replayed};
  return {CallStyle::tagged_json, false, false};
}

std::vector<Message> with_tools(std::vector<Message> messages, const std::string& tools, const ToolFormat& format) {
  if (!format.explained && !tools.empty()) {
    const std::string text = explanation(parse_list(tools), format.style);
    if (messages.empty() || messages[0].role != "system") {
      Message system;
      system.role = "system";
      messages.insert(messages.begin(), system);
    }
    messages[0].content += (messages[0].content.empty() ? "" : "\n\n") + text;
  }
  if (format.replayed) return messages;
  for (Message& message : messages) {
    if (!message.tool_calls.empty()) {
      message.content += (message.content.empty() ? "" : "\n") + calls_as_text(message.tool_calls);
      message.tool_calls.clear();
    }
    if (message.role != "tool") continue;
    message.role = "user";
    message.content = "<tool_response>\n" + message.content + "\n</tool_response>";
  }
  return messages;
}

std::string call_begin(CallStyle style) {
  switch (style) {
    case CallStyle::tagged_json:
      return "<tool_call>";
    case CallStyle::parameters:
      return "<｜DSML｜function_calls>";
    default:
      return "<｜tool▁calls▁begin｜>";
  }
}

std::string call_form(CallStyle style, const Tokenizer& tokenizer, const std::string& tools, const std::string& name, bool several,
                      bool begun) {
  const auto any = [&](bool behind_begin) {
    Json choices = Json::array();
    for (const Json& tool : parse_list(tools)) {
      const Json& function = function_of(tool);
      if (name.empty() || function.at("name") == Json(name)) choices.push_back(one_call(style, tokenizer, function, behind_begin));
    }
    if (choices.empty()) throw Error("tool_choice: there is no function '{}' among the tools", name);
    return choices.size() == 1 ? choices[0] : Json{{"type", "or"}, {"elements", std::move(choices)}};
  };
  const bool block = style != CallStyle::tagged_json;
  Json parts = Json::array();
  if (block && !begun) parts.push_back(marker(tokenizer, call_begin(style)));
  if (style == CallStyle::parameters) parts.push_back(literal("\n"));
  parts.push_back(any(begun));
  if (several) {
    const bool lines = style == CallStyle::tagged_json || style == CallStyle::fenced_json;
    const Json more = lines ? sequence({literal("\n"), any(false)}) : any(false);
    parts.push_back({{"type", "star"}, {"content", more}});
  }
  if (style == CallStyle::parameters)
    parts.push_back(literal("</｜DSML｜function_calls>"));
  else if (block)
    parts.push_back(marker(tokenizer, "<｜tool▁calls▁end｜>"));
  return dump({{"type", "structural_tag"}, {"format", sequence(std::move(parts))}});
}

}  // namespace hadal
