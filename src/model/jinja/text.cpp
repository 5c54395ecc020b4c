// Characters over UTF-8 bytes: stepping, white space, case, splitting.
#include "model/jinja/text.h"

#include <utf8proc.h>

#include <cstring>

#include "model/unicode.h"

namespace hadal::jinja {
namespace {

bool continues(std::string_view text, size_t at) { return at < text.size() && (uint8_t(text[at]) & 0xc0) == 0x80; }

template <class F>
std::string map_characters(std::string_view text, F&& f) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t size = character_size(text, at);
    const char32_t c = character_at(text, at), mapped = f(c);
    if (mapped == c) {
      out += text.substr(at, size);
    } else {
      append_character(out, mapped);
    }
    at += size;
  }
  return out;
}

bool holds(std::string_view characters, std::string_view c) {
  for (size_t at = 0; at < characters.size(); at += character_size(characters, at)) {
    if (characters.substr(at, character_size(characters, at)) == c) return true;
  }
  return false;
}

size_t last_character(std::string_view text) {  // where it begins; the text is not empty
  for (size_t back = 1; back <= 4 && back <= text.size(); ++back) {
    if (character_size(text, text.size() - back) == back) return text.size() - back;
    if (!continues(text, text.size() - back)) break;
  }
  return text.size() - 1;
}

}  // namespace

size_t character_size(std::string_view text, size_t at) {
  const Utf8Step step = utf8_step(text.substr(at));
  return step.kind == Utf8Step::whole ? step.bytes : 1;
}

size_t character_count(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at += character_size(text, at)) ++count;
  return count;
}

char32_t character_at(std::string_view text, size_t at) {
  const Utf8Step step = utf8_step(text.substr(at));
  return step.kind == Utf8Step::whole ? step.point : 0xdc00 + uint8_t(text[at]);
}

void append_character(std::string& out, char32_t c) {
  if (c >= 0xdc80 && c <= 0xdcff) {
    out += char(c - 0xdc00);
  } else {
    append_utf8(c, out);
  }
}

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

std::string_view strip_left(std::string_view text) {
  while (!text.empty() && is_space(character_at(text, 0))) text.remove_prefix(character_size(text, 0));
  return text;
}

std::string_view strip_right(std::string_view text) {
  while (!text.empty() && is_space(character_at(text, last_character(text)))) text = text.substr(0, last_character(text));
  return text;
}

std::string_view strip_left(std::string_view text, std::string_view characters) {
  while (!text.empty() && holds(characters, text.substr(0, character_size(text, 0)))) text.remove_prefix(character_size(text, 0));
  return text;
}

std::string_view strip_right(std::string_view text, std::string_view characters) {
  while (!text.empty() && holds(characters, text.substr(last_character(text)))) text = text.substr(0, last_character(text));
  return text;
}

char32_t to_upper(char32_t c) { return c == 0xdf ? c : char32_t(utf8proc_toupper(utf8proc_int32_t(c))); }
char32_t to_lower(char32_t c) { return char32_t(utf8proc_tolower(utf8proc_int32_t(c))); }
char32_t to_title(char32_t c) { return char32_t(utf8proc_totitle(utf8proc_int32_t(c))); }
std::string_view category(char32_t c) { return utf8proc_category_string(utf8proc_int32_t(c)); }

std::string upper(std::string_view text) {
  std::string out = map_characters(text, to_upper);
  for (size_t at = out.find("ß"); at != std::string::npos; at = out.find("ß", at)) out.replace(at, 2, "SS");  // as long in UTF-8
  return out;
}
std::string lower(std::string_view text) { return map_characters(text, to_lower); }

std::string capitalize(std::string_view text) {
  bool first = true;
  return map_characters(text, [&](char32_t c) { return std::exchange(first, false) ? to_title(c) : to_lower(c); });
}

size_t find_text(Bounds& bounds, std::string_view text, std::string_view piece, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  // memmem takes linear time whatever the texts are.
  const auto found = static_cast<const char*>(memmem(text.data() + from, text.size() - from, piece.data(), piece.size()));
  const size_t at = found ? size_t(found - text.data()) : text.size();
  bounds.step(int64_t(1 + (at - from + piece.size()) / 64));
  return found ? at : std::string_view::npos;
}

size_t find_last_text(Bounds& bounds, std::string_view text, std::string_view piece) {
  const int64_t width = int64_t(1 + piece.size() / 64);  // of a comparison at one place, in steps
  if (width > 1) bounds.step(int64_t(text.size()) * width);
  const size_t at = text.rfind(piece);
  bounds.step(int64_t(1 + (text.size() - (at == std::string_view::npos ? 0 : at)) / 16));
  return at;
}

std::string replace_all(Bounds& bounds, std::string_view text, std::string_view from, std::string_view to, int64_t most) {
  std::string out;
  size_t at = 0;
  while (most != 0) {
    bounds.step();
    // An empty `from` stands before every character and at the end.
    const size_t found = from.empty() ? at : find_text(bounds, text, from, at);
    if (found == std::string_view::npos || at > text.size()) break;
    const size_t kept = from.empty() && at < text.size() ? character_size(text, at) : 0;
    if (out.size() + (found - at) + to.size() + kept > size_t(bounds.value_bytes)) bounds.make(size_t(bounds.value_bytes) + 1);
    out += text.substr(at, found - at);
    out += to;
    out += text.substr(found, kept);
    at = found + from.size() + kept;
    if (most > 0) --most;
    if (from.empty() && kept == 0) return out;
  }
  if (at < text.size()) out += text.substr(at);
  return out;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = character_at(text, at);
    const size_t size = character_size(text, at);
    const bool ends = (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!ends) {
      at += size;
      continue;
    }
    const size_t next = at + size + (c == '\r' && at + 1 < text.size() && text[at + 1] == '\n');
    lines.push_back(text.substr(start, (keep_ends ? next : at) - start));
    start = at = next;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

}  // namespace hadal::jinja
