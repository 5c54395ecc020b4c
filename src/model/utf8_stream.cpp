// Whole characters out of bytes that arrive in parts.
#include "model/tokenizer.h"
#include "model/unicode.h"

namespace hadal {

// Appends the characters of `text`, U+FFFD for each longest start of one that does not go on; returns what may still go on.
static std::string_view append_characters(std::string_view text, std::string& out) {
  while (!text.empty()) {
    const size_t valid = valid_utf8_prefix(text);
    out += text.substr(0, valid);
    text.remove_prefix(valid);
    if (text.empty()) break;
    const Utf8Step step = utf8_step(text);
    if (step.kind == Utf8Step::cut) break;
    out += "\xef\xbf\xbd";
    text.remove_prefix(step.bytes);
  }
  return text;
}

std::string Utf8Stream::push(std::string_view bytes) {
  held_ += bytes;
  std::string out;
  held_ = std::string(append_characters(held_, out));
  return out;
}

std::string Utf8Stream::finish() {
  const std::string out = held_.empty() ? "" : "\xef\xbf\xbd";
  held_.clear();
  return out;
}

}  // namespace hadal
