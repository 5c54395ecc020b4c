// Regular expressions of tokenizer.json. They are written for Oniguruma (Ruby's syntax, Unicode 16), and are run by PCRE2 with
// the same meaning: what would mean something else there is refused or rewritten.
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace hadal {

class Regex {
 public:
  class Scratch {  // what one thread needs to match; any number of expressions can share it
   public:
    Scratch();
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

   private:
    friend class Regex;
    struct State;
    std::unique_ptr<State> state_;
  };
  struct Span {
    size_t first, last;  // bytes, last excluded; may be empty
  };

  // Error: names `where`, and what in the pattern is not understood.
  Regex(std::string_view pattern, std::string where);
  static Regex literal(std::string_view text, std::string where);
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // The first match that starts at `from` or later. `text` must be valid UTF-8.
  // Error when the search needs more steps or memory than a pattern for words ever does.
  bool find(std::string_view text, size_t from, Span& found, Scratch& scratch) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

std::string to_pcre2(std::string_view pattern, const std::string& where);  // the rewriting alone

}  // namespace hadal
