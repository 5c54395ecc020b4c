// UTF-8 as bytes come: where characters end, what is not one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace hadal {

constexpr uint32_t shield_mark = 0xfdd0;  // of Tokenizer::shield: a code point that is never a character. Nothing escapes it

struct Utf8Step {
  enum Kind : uint8_t { whole, broken, cut } kind;  // cut: the start of a character, ended by the end of the text
  uint8_t bytes;   // of the character, or of the longest start of one (at least 1), as in Unicode 3.9, table 3-8
  uint32_t point;  // of a whole character
};
Utf8Step utf8_step(std::string_view text);  // text is not empty

size_t valid_utf8_prefix(std::string_view text);  // bytes of whole characters before the first broken or cut one
void append_utf8(uint32_t point, std::string& out);

}  // namespace hadal
