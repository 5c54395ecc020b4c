// Templates from a checkpoint: messages and options in as values, the rendered text out, errors with their place.
#include "model/chat_template.h"

#include "core/error.h"
#include "model/built_in_templates.h"
#include "model/jinja/interpreter.h"
#include "model/jinja/parser.h"
#include "model/jinja/text.h"

namespace hadal {

using namespace jinja;

struct ChatTemplate::Program {
  std::string source, where;
  Body body;
};

namespace {

bool is_json(Bounds& bounds, const std::string& text) {
  try {
    read_json(bounds, text, "arguments");
    return true;
  } catch (const Error&) {
    return false;
  }
}

// Arguments are a text of JSON. Templates put it where it belongs as it is, or write it as JSON: both give what the model once wrote.
Value with_json_arguments(Bounds& bounds, const Value& value) {
  if (const Sequence* list = value.sequence()) {
    Values items;
    for (const Value& item : list->items) items.push_back(with_json_arguments(bounds, item));
    return make_sequence(bounds, std::move(items));
  }
  if (!value.dict()) return value;
  Pairs items = value.dict()->items;
  for (auto& [key, inner] : items) {
    if (*key.text() == "function") inner = with_json_arguments(bounds, inner);
    if (*key.text() == "arguments" && inner.text()) inner.is_json = is_json(bounds, *inner.text());
  }
  return make_dict(bounds, std::move(items));
}

// Of a JSON text whose strings `role` has said.
Value shielded_json(Bounds& bounds, const RenderOptions& options, const std::string& json, std::string_view what, const char* role) {
  if (!options.shield) return read_json(bounds, json, what);
  return read_json(bounds, json, what, [&](const std::string& text) { return options.shield(text, role); });
}

Value value_of(Bounds& bounds, const Message& message, size_t index, const RenderOptions& options) {
  const auto said = [&](const std::string& text, const std::string& role) {
    return make_text(bounds, options.shield ? options.shield(text, role) : text);
  };
  Pairs fields;
  const auto add = [&](const char* name, Value value) { fields.emplace_back(make_text(bounds, name), std::move(value)); };
  add("role", make_text(bounds, message.role));
  // A turn that only calls tools has no content: null in the OpenAI interface, and templates ask for that.
  const bool only_calls = message.content.empty() && !message.tool_calls.empty();
  add("content", only_calls ? Value(None{}) : said(message.content, message.role));
  if (!message.reasoning.empty()) add("reasoning_content", said(message.reasoning, "reasoning"));
  if (!message.tool_calls.empty())
    add("tool_calls", with_json_arguments(bounds, shielded_json(bounds, options, message.tool_calls,
                                                                fmt::format("tool_calls of message {}", index), "tool")));
  if (!message.name.empty()) add("name", said(message.name, "tool"));
  if (!message.tool_call_id.empty()) add("tool_call_id", said(message.tool_call_id, "tool"));
  return make_dict(bounds, std::move(fields));
}

std::vector<std::pair<std::string, Value>> variables_of(Bounds& bounds, std::span<const Message> messages, const RenderOptions& options) {
  Values turns;
  for (size_t i = 0; i < messages.size(); ++i) turns.push_back(value_of(bounds, messages[i], i, options));
  std::vector<std::pair<std::string, Value>> variables;
  variables.emplace_back("messages", make_sequence(bounds, std::move(turns)));
  variables.emplace_back("tools", options.tools.empty() ? Value(None{}) : shielded_json(bounds, options, options.tools, "tools", "tool"));
  variables.emplace_back("documents", Value(None{}));
  variables.emplace_back("add_generation_prompt", Value(options.add_generation_prompt));
  variables.emplace_back("bos_token", make_text(bounds, options.begin_token));
  variables.emplace_back("eos_token", make_text(bounds, options.end_token));
  if (options.extra.empty()) return variables;
  const Value extra = shielded_json(bounds, options, options.extra, "the further variables", "user");
  if (!extra.dict()) throw Error("the further variables must be a JSON object, found '{}'", type_name(extra));
  for (const auto& [key, value] : extra.dict()->items) variables.emplace_back(*key.text(), value);
  return variables;
}

}  // namespace

ChatTemplate::ChatTemplate(std::unique_ptr<const Program> program) : program_(std::move(program)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;
const std::string& ChatTemplate::source() const { return program_->source; }

ChatTemplate ChatTemplate::parse(const std::string& source, const std::string& where) {
  constexpr size_t limit = size_t(1) << 20;  // published ones stay below 50 kB
  if (source.size() > limit) throw Error("{}: a template of at most {} bytes is expected, found {}", where, limit, source.size());
  try {
    return ChatTemplate(std::make_unique<const Program>(Program{source, where, parse_template(source)}));
  } catch (const Error& e) {
    throw Error("{}: {}", where, e.what());
  }
}

ChatTemplate ChatTemplate::built_in(const std::string& family) {
  if (family == "deepseek_v32") return parse(std::string(deepseek_v32_template), "built-in template deepseek_v32");
  throw Error("no chat template is built in for '{}', only for 'deepseek_v32'", family);
}

std::string ChatTemplate::render(std::span<const Message> messages, const RenderOptions& options) const {
  Bounds bounds;
  if (options.shield) bounds.shield = [&](const std::string& text) { return options.shield(text, "tool"); };
  std::vector<std::pair<std::string, Value>> variables;
  try {
    variables = variables_of(bounds, messages, options);
  } catch (const Error& e) {
    throw Error("{}: {}", program_->where, e.what());
  }
  Interpreter interpreter(bounds, std::move(variables));
  try {
    return interpreter.render(program_->body);
  } catch (const Error& e) {
    throw Error("{}: line {}: {}", program_->where, interpreter.line(), e.what());
  }
}

}  // namespace hadal
