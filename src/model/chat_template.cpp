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

Value value_of(Bounds& bounds, const Message& message, size_t index) {
  Pairs fields;
  const auto add = [&](const char* name, Value value) { fields.emplace_back(make_text(bounds, name), std::move(value)); };
  add("role", make_text(bounds, message.role));
  // A turn that only calls tools has no content: null in the OpenAI interface, and templates ask for that.
  const bool only_calls = message.content.empty() && !message.tool_calls.empty();
  add("content", only_calls ? Value(None{}) : make_text(bounds, message.content));
  if (!message.reasoning.empty()) add("reasoning_content", make_text(bounds, message.reasoning));
  if (!message.tool_calls.empty()) add("tool_calls", read_json(bounds, message.tool_calls, fmt::format("tool_calls of message {}", index)));
  if (!message.name.empty()) add("name", make_text(bounds, message.name));
  if (!message.tool_call_id.empty()) add("tool_call_id", make_text(bounds, message.tool_call_id));
  return make_dict(bounds, std::move(fields));
}

std::vector<std::pair<std::string, Value>> variables_of(Bounds& bounds, std::span<const Message> messages, const RenderOptions& options) {
  Values turns;
  for (size_t i = 0; i < messages.size(); ++i) turns.push_back(value_of(bounds, messages[i], i));
  std::vector<std::pair<std::string, Value>> variables;
  variables.emplace_back("messages", make_sequence(bounds, std::move(turns)));
  variables.emplace_back("tools", options.tools.empty() ? Value(None{}) : read_json(bounds, options.tools, "tools"));
  variables.emplace_back("documents", Value(None{}));
  variables.emplace_back("add_generation_prompt", Value(options.add_generation_prompt));
  variables.emplace_back("bos_token", make_text(bounds, options.begin_token));
  variables.emplace_back("eos_token", make_text(bounds, options.end_token));
  if (options.extra.empty()) return variables;
  const Value extra = read_json(bounds, options.extra, "the further variables");
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
