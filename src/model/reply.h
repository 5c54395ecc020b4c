// A model's reply on its way to a reader: whole characters, reasoning apart from the answer, nothing from a stop text on.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer.h"
#include "model/tool_calls.h"

namespace hadal {

class ReplyStream {
 public:
  // stops: texts that end the reply and are not shown, empty ones ignored. starts_in_reasoning: the prompt ended inside <think>.
  // separate_reasoning off: everything is answer, the tags too. calls: how calls of tools are written; none: they are text.
  ReplyStream(const Tokenizer& tokenizer, std::vector<std::string> stops, bool starts_in_reasoning, bool separate_reasoning,
              std::optional<CallStyle> calls = {});
  std::vector<ReplyPiece> push(int32_t token);       // what can be shown by now
  std::vector<ReplyPiece> finish();                  // what was held back
  bool stopped() const { return stopped_; }          // a stop text came: no more tokens are needed
  const std::string& stop() const { return stop_; }  // which one
  bool in_reasoning() const { return reasoning_; }   // what comes next, as far as is known

 private:
  std::vector<ReplyPiece> advance(bool last);
  void show(std::string_view text, std::vector<ReplyPiece>& pieces);

  const Tokenizer& tokenizer_;
  Utf8Stream characters_;
  std::optional<ToolCallParser> calls_;
  std::vector<std::string> stops_;
  std::string stop_;
  std::string held_;  // may begin a stop text or a tag
  bool reasoning_, separate_, begun_ = false, stopped_ = false;
  bool after_tag_ = false;  // newlines are dropped until other text comes
};

struct Reply {
  std::string reasoning, answer;
};
Reply split_reasoning(std::string_view text, bool starts_in_reasoning = false);
bool prompt_opens_reasoning(std::string_view prompt);  // it ends with <think> and at most white space

}  // namespace hadal
