// Calls of tools in a reply: how a model writes them, and the way back from its text.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/chat_template.h"

namespace hadal {

class Tokenizer;

enum class CallStyle {
  tagged_json,  // <tool_call>\n{"name": NAME, "arguments": {...}}\n</tool_call> (Hermes, Qwen)
  fenced_json,  // <｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n{...}\n```<｜tool▁call▁end｜> in one block (DeepSeek V3, R1)
  plain_json,  // <｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{...}<｜tool▁call▁end｜> in one block (DeepSeek V3.1)
  parameters,  // <｜DSML｜invoke name="NAME"> with a tag for each parameter, in one block (DeepSeek V3.2)
};

struct ToolFormat {
  CallStyle style;
  bool explained;  // the template tells the model which tools there are
  bool replayed;   // the template writes the calls of earlier turns
};
ToolFormat tool_format(const std::string& template_source);  // Error: it writes calls in a way that is not known

// The messages as the template can show them: what it does not explain or replay itself is written into them. tools: JSON array.
std::vector<Message> with_tools(std::vector<Message> messages, const std::string& tools, const ToolFormat& format);

std::string call_begin(CallStyle style);  // the text that a reply's calls begin with
// A structural tag (ReplyForm) of the calls: of the one tool `name`, or of any; one call or several. begun: behind call_begin().
// Error: there is no such tool, or the schema of its parameters is not supported.
std::string call_form(CallStyle style, const Tokenizer& tokenizer, const std::string& tools, const std::string& name, bool several,
                      bool begun);

struct ReplyPiece {
  enum class Kind { answer, reasoning, call, arguments } kind;
  std::string text;  // of a call: its name; its arguments follow, JSON in pieces
};

class ToolCallParser {  // the same pieces wherever the text is cut
 public:
  explicit ToolCallParser(CallStyle style) : style_(style) {}
  void push(std::string_view text, std::vector<ReplyPiece>& pieces);
  void finish(std::vector<ReplyPiece>& pieces);   // what was held back
  static bool is_marker(std::string_view token);  // a special token that is part of some style

 private:
  enum class State { text, between, head, arguments, tail, parameters, value };
  bool step(std::vector<ReplyPiece>& pieces);
  bool take_text(std::vector<ReplyPiece>& pieces);
  bool take_between(std::vector<ReplyPiece>& pieces);
  bool take_head(std::vector<ReplyPiece>& pieces);
  bool take_tagged_head(std::vector<ReplyPiece>& pieces);
  bool take_arguments(std::vector<ReplyPiece>& pieces);
  bool take_tail();
  bool take_parameters(std::vector<ReplyPiece>& pieces);
  bool take_value(std::vector<ReplyPiece>& pieces);
  bool give_up(std::vector<ReplyPiece>& pieces);
  bool starts_with(std::string_view word) const { return std::string_view(held_).starts_with(word); }

  const CallStyle style_;
  State state_ = State::text;
  std::string held_;   // not decided yet
  std::string taken_;  // of what may still turn out to be no call
  bool called_ = false;
  int64_t depth_ = 0;  // of the arguments' brackets
  bool in_string_ = false, escaped_ = false;
  bool first_parameter_ = true, text_value_ = false;
};

}  // namespace hadal
