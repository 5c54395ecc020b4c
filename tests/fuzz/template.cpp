// Any bytes as a template, rendered with a small conversation under bounds that a sanitized build reaches in a second: a text or an Error.
#include "core/error.h"
#include "model/jinja/interpreter.h"
#include "model/jinja/parser.h"
#include "model/jinja/text.h"

using namespace hadal::jinja;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string conversation = R"({
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi, \u4e16\u754c\n"},
                 {"role": "assistant", "content": null, "reasoning_content": "<think>",
                  "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"a": [1, 2.5, null, true, "x"]}}}]},
                 {"role": "tool", "content": "42", "name": "f"}],
    "tools": [{"function": {"name": "f", "parameters": {"items": {"n": 1e300, "u": 18446744073709551615}}}}],
    "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "\ud7ff</s>", "n": 3, "empty": {}})";
  Bounds bounds{200'000, int64_t(64) << 20, int64_t(4) << 20};
  std::vector<std::pair<std::string, Value>> variables;
  const Value root = read_json(bounds, conversation, "the conversation");
  for (const auto& [key, value] : root.dict()->items) variables.emplace_back(*key.text(), value);
  variables.emplace_back("bytes", make_text(bounds, "a\xff\xe4\xb8 \xc3"));
  try {
    const Body body = parse_template({reinterpret_cast<const char*>(data), size});
    Interpreter(bounds, std::move(variables)).render(body);
  } catch (const hadal::Error&) {
  }
  return 0;
}
