// What a call asks its reply to look like.
#pragma once
#include <optional>
#include <string>

#include "infer/grammar.h"
#include "model/tool_calls.h"
#include "serve/dialect.h"

namespace hadal {

struct AskedForm {
  ReplyForm form;
  const char* field;  // of the call
};
std::optional<AskedForm> form_of(const Call& call);  // none: it is free. ApiError: more than one, or one that makes no sense

struct ToolUse {
  std::optional<ToolFormat> format;  // none: no tool is in play
  std::string tools;                 // JSON, that the model may call; empty: none
  std::string only;                  // the one that must be called
  bool must = false;                 // some call must come
};
ToolUse tool_use_of(const Call& call, const ChatTemplate& chat);  // ApiError: a choice that makes no sense

}  // namespace hadal
