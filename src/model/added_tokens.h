// Tokens that are matched as they are written, before anything else looks at the text.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

struct AddedToken {
  int32_t id = -1;
  std::string text;
  bool special = false;                          // a control token
  bool normalized = false;                       // matched in the normalised text, in its normalised form
  bool takes_left = false, takes_right = false;  // swallows the white space beside it (lstrip, rstrip)
};

class AddedTokenMatcher {  // the leftmost match, and the longest of those
 public:
  AddedTokenMatcher() = default;
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);  // Error: a text of more than 1024 bytes

  struct Match {
    size_t first, last;  // bytes, with the white space taken
    const AddedToken* token;
  };
  // Where in `text` one of the tokens begins, or could begin once more text follows.
  std::vector<size_t> starts(std::string_view text) const;

  // Calls plain(std::string_view) and token(const AddedToken&) for the parts of `text`, in order.
  // With special_as_text a special token's text is left in the plain parts.
  template <class Plain, class Token>
  void split(std::string_view text, bool special_as_text, Plain&& plain, Token&& token) const {
    size_t done = 0, from = 0;
    Match match;
    while (find(text, from, match)) {
      from = match.last;
      if (special_as_text && match.token->special) continue;
      if (match.token->takes_left) match.first = space_before(text, match.first, done);
      if (match.token->takes_right) from = match.last = space_after(text, match.last);
      if (match.first > done) plain(text.substr(done, match.first - done));
      token(*match.token);
      done = match.last;
    }
    if (done < text.size()) plain(text.substr(done));
  }

 private:
  bool find(std::string_view text, size_t from, Match& match) const;
  static size_t space_before(std::string_view text, size_t end, size_t limit);
  static size_t space_after(std::string_view text, size_t from);
  std::vector<AddedToken> sorted_;     // by text
  std::array<bool, 256> starts_ = {};  // with this byte some token starts
  size_t longest_ = 0;                 // bytes of a token
};

}  // namespace hadal
