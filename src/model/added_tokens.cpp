// The tokens are kept sorted; walking along the text narrows the range of those that still agree with it.
#include "model/added_tokens.h"

#include <algorithm>

#include "core/error.h"
#include "model/unicode.h"
#include "model/unicode_ranges.h"

namespace hadal {

namespace {

bool is_white_space(uint32_t point) {
  return std::any_of(std::begin(white_space), std::end(white_space), [&](CodeRange r) { return r.first <= point && point <= r.last; });
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : sorted_(std::move(tokens)) {
  // Of two tokens with one text the later counts, as in `tokenizers`.
  std::reverse(sorted_.begin(), sorted_.end());
  std::stable_sort(sorted_.begin(), sorted_.end(), [](const AddedToken& a, const AddedToken& b) { return a.text < b.text; });
  const auto same = [](const AddedToken& a, const AddedToken& b) { return a.text == b.text; };
  sorted_.erase(std::unique(sorted_.begin(), sorted_.end(), same), sorted_.end());
  std::erase_if(sorted_, [](const AddedToken& t) { return t.text.empty(); });
  for (const AddedToken& token : sorted_) {
    if (token.text.size() > 1024) throw Error("added token {}: its text has {} bytes; at most 1024 expected", token.id, token.text.size());
    starts_[uint8_t(token.text[0])] = true;
    longest_ = std::max(longest_, token.text.size());
  }
}

bool AddedTokenMatcher::find(std::string_view text, size_t from, Match& match) const {
  for (size_t at = from; at < text.size(); at++) {
    if (!starts_[uint8_t(text[at])]) continue;
    auto first = sorted_.begin(), last = sorted_.end();
    const AddedToken* longest = nullptr;
    for (size_t depth = 0; first != last; depth++) {
      if (first->text.size() == depth) {
        longest = &*first;
        if (++first == last) break;
      }
      if (at + depth == text.size()) break;
      const uint8_t byte = uint8_t(text[at + depth]);
      first = std::lower_bound(first, last, byte, [&](const AddedToken& t, uint8_t b) { return uint8_t(t.text[depth]) < b; });
      last = std::upper_bound(first, last, byte, [&](uint8_t b, const AddedToken& t) { return b < uint8_t(t.text[depth]); });
    }
    if (longest == nullptr) continue;
    match = {at, at + longest->text.size(), longest};
    return true;
  }
  return false;
}

std::vector<size_t> AddedTokenMatcher::starts(std::string_view text) const {
  std::vector<size_t> found;
  Match match;
  for (size_t from = 0; find(text, from, match); from = match.first + 1) found.push_back(match.first);
  for (size_t at = text.size() < longest_ ? 0 : text.size() - longest_ + 1; at < text.size(); ++at) {
    const std::string_view rest = text.substr(at);
    const auto next =
        std::lower_bound(sorted_.begin(), sorted_.end(), rest, [](const AddedToken& t, std::string_view r) { return t.text < r; });
    if (next != sorted_.end() && next->text.starts_with(rest)) found.push_back(at);
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

size_t AddedTokenMatcher::space_before(std::string_view text, size_t end, size_t limit) {
  while (end > limit) {
    size_t start = end - 1;
    while (start > limit && (text[start] & 0xc0) == 0x80) start--;
    if (!is_white_space(utf8_step(text.substr(start, end - start)).point)) break;
    end = start;
  }
  return end;
}

size_t AddedTokenMatcher::space_after(std::string_view text, size_t from) {
  while (from < text.size()) {
    const Utf8Step step = utf8_step(text.substr(from));
    if (step.kind != Utf8Step::whole || !is_white_space(step.point)) break;
    from += step.bytes;
  }
  return from;
}

}  // namespace hadal
