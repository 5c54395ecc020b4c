// What a call asks its reply to look like.
#pragma once
#include <optional>

#include "infer/grammar.h"
#include "serve/dialect.h"

namespace hadal {

struct AskedForm {
  ReplyForm form;
  const char* field;  // of the call
};
std::optional<AskedForm> form_of(const Call& call);  // none: it is free. ApiError: more than one, or one that makes no sense

}  // namespace hadal
