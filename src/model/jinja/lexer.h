// A template's source as tokens: text between tags, and what stands inside them. White space control is settled here.
#pragma once
#include <string>
#include <vector>

#include "model/jinja/value.h"

namespace hadal::jinja {

struct Token {
  enum class Kind { text, print_begin, print_end, block_begin, block_end, name, string, integer, real, sign, end };
  Kind kind;
  std::string text;  // string: unescaped; sign: an operator or a bracket
  int line;
  Integer integer = 0;
  double real = 0;
};

// As Jinja does with trim_blocks and lstrip_blocks, and without the last newline of the source. Error: "line N: ...".
std::vector<Token> read_tokens(const std::string& source);

}  // namespace hadal::jinja
