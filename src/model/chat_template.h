// A conversation as the text its model was trained on: the checkpoint's own Jinja template, rendered in bounded time and memory.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace hadal {

struct Message {
  std::string role, content;
  std::string reasoning;   // shown to templates as reasoning_content; empty: absent
  std::string tool_calls;  // JSON array as the OpenAI interface has it; empty: absent
  std::string name, tool_call_id;
};

struct RenderOptions {
  bool add_generation_prompt = true;
  std::string tools;                   // JSON array; empty: none
  std::string extra;                   // JSON object of further variables, e.g. {"thinking": true}; empty: none
  std::string begin_token, end_token;  // as text
  // What is said, by whom, on its way into the template: messages, tools (by "tool") and further variables; empty: as it is.
  std::function<std::string(const std::string& text, const std::string& role)> shield = {};
};

class ChatTemplate {
 public:
  // Error names the template, the line and the construct that is not understood.
  static ChatTemplate parse(const std::string& source, const std::string& where);
  static ChatTemplate built_in(const std::string& family);  // families whose checkpoint carries none: deepseek_v32
  ChatTemplate(ChatTemplate&&) noexcept;
  ~ChatTemplate();
  std::string render(std::span<const Message> messages,
                     const RenderOptions& options) const;  // Error: as the template raises, or out of bounds
  const std::string& source() const;

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<const Program> program);
  std::unique_ptr<const Program> program_;
};

}  // namespace hadal
