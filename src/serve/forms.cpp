#include "serve/forms.h"

#include <algorithm>

#include "serve/field.h"

namespace hadal {
namespace {

ReplyForm of_response_format(const std::string& json) {
  const Field format = Field::of_body(json);
  if (format["type"].text() == "json_object") return any_json_object();
  const Field schema = format["json_schema"]["schema"];
  if (!schema) throw ApiError(400, "response_format.json_schema.schema: expected a JSON schema, found nothing", "response_format");
  return {ReplyForm::Kind::json_schema, schema.json()};
}

ReplyForm of_choices(const std::string& json) {
  const Field list = Field::of_body(R"({"guided_choice": )" + json + "}")["guided_choice"];
  std::vector<std::string> choices;
  for (const Field& choice : list.items()) choices.push_back(choice.text());
  try {
    return one_of(choices);
  } catch (const Error& error) {
    throw ApiError(400, fmt::format("guided_choice: {}", error.what()), "guided_choice");
  }
}

}  // namespace

std::optional<AskedForm> form_of(const Call& call) {
  std::optional<AskedForm> asked;
  const auto ask = [&](const std::string& text, const char* field, auto make) {
    if (text.empty()) return;
    if (asked) throw ApiError(400, fmt::format("{}: a reply keeps to one form, and {} asks for another", field, asked->field), field);
    asked = {make(text), field};
  };
  ask(call.response_format, "response_format", of_response_format);
  ask(call.guided_regex, "guided_regex", [](const std::string& text) { return ReplyForm{ReplyForm::Kind::regex, text}; });
  ask(call.guided_choice, "guided_choice", of_choices);
  ask(call.guided_grammar, "guided_grammar", [](const std::string& text) { return ReplyForm{ReplyForm::Kind::ebnf, text}; });
  return asked;
}

ToolUse tool_use_of(const Call& call, const ChatTemplate& chat) {
  ToolUse use;
  const bool replayed =
      std::ranges::any_of(call.messages, [](const Message& message) { return message.role == "tool" || !message.tool_calls.empty(); });
  if (call.tools.empty() && !replayed) return use;
  use.format = tool_format(chat.source());
  const Field choice = Field::of_body(call.tool_choice.empty() ? "{}" : R"({"tool_choice": )" + call.tool_choice + "}")["tool_choice"];
  std::string how = "auto";
  if (choice.is_object()) {
    how = "required";
    use.only = choice["function"]["name"].text();
  } else if (choice) {
    how = choice.text();
  }
  if (how != "auto" && how != "none" && how != "required") choice.fail("none, auto, required or a function");
  use.must = how == "required";
  if (how != "none") use.tools = call.tools;
  if (use.must && use.tools.empty()) throw ApiError(400, "tool_choice: a call is required, but there are no tools", "tool_choice");
  return use;
}

}  // namespace hadal
