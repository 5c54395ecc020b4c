// Characters over UTF-8 bytes: stepping, white space, case, splitting.
#include "model/jinja/text.h"

#include "core/error.h"

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
  const uint8_t first = uint8_t(text[at]);
  if (first < 0xc2 || first > 0xf4 || !continues(text, at + 1)) return 1;
  if (first < 0xe0) return 2;
  const uint8_t second = uint8_t(text[at + 1]);
  if (!continues(text, at + 2)) return 1;
  if (first < 0xf0) return (first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ? 1 : 3;
  if (!continues(text, at + 3)) return 1;
  return (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f) ? 1 : 4;
}

size_t character_count(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at += character_size(text, at)) ++count;
  return count;
}

char32_t character_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return char32_t(uint8_t(text[at + i])); };
  switch (character_size(text, at)) {
    case 2:
      return (byte(0) & 0x1f) << 6 | (byte(1) & 0x3f);
    case 3:
      return (byte(0) & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
    case 4:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f);
    default:
      return byte(0) < 0x80 ? byte(0) : 0xdc00 + byte(0);
  }
}

void append_character(std::string& out, char32_t c) {
  if (c >= 0xdc80 && c <= 0xdcff) {
    out += char(c - 0xdc00);
  } else if (c < 0x80) {
    out += char(c);
  } else if (c < 0x800) {
    out += {char(0xc0 | c >> 6), char(0x80 | (c & 0x3f))};
  } else if (c < 0x10000) {
    out += {char(0xe0 | c >> 12), char(0x80 | (c >> 6 & 0x3f)), char(0x80 | (c & 0x3f))};
  } else {
    out += {char(0xf0 | c >> 18), char(0x80 | (c >> 12 & 0x3f)), char(0x80 | (c >> 6 & 0x3f)), char(0x80 | (c & 0x3f))};
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

char32_t to_upper(char32_t c) {
  if (c >= 'a' && c <= 'z') return c - 32;
  if (c < 0xb5) return c;
  if (c == 0xb5) return 0x39c;
  if (c == 0xff) return 0x178;
  if (c >= 0xe0 && c <= 0xfe && c != 0xf7) return c - 32;
  if ((c >= 0x100 && c <= 0x137 && c != 0x130 && c != 0x131) || (c >= 0x14a && c <= 0x177)) return c & ~char32_t(1);
  if ((c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e)) return c & 1 ? c : c - 1;
  if (c >= 0x3b1 && c <= 0x3c9 && c != 0x3c2) return c - 32;
  if (c >= 0x430 && c <= 0x44f) return c - 32;
  if (c >= 0x450 && c <= 0x45f) return c - 80;
  return c;
}

char32_t to_lower(char32_t c) {
  if (c >= 'A' && c <= 'Z') return c + 32;
  if (c < 0xc0) return c;
  if (c == 0x178) return 0xff;
  if (c >= 0xc0 && c <= 0xde && c != 0xd7) return c + 32;
  if ((c >= 0x100 && c <= 0x137 && c != 0x130 && c != 0x131) || (c >= 0x14a && c <= 0x177)) return c | 1;
  if ((c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e)) return c & 1 ? c + 1 : c;
  if (c >= 0x391 && c <= 0x3a9 && c != 0x3a2) return c + 32;
  if (c >= 0x410 && c <= 0x42f) return c + 32;
  if (c >= 0x400 && c <= 0x40f) return c + 80;
  return c;
}

std::string upper(std::string_view text) { return map_characters(text, to_upper); }
std::string lower(std::string_view text) { return map_characters(text, to_lower); }

std::string capitalize(std::string_view text) {
  bool first = true;
  return map_characters(text, [&](char32_t c) { return std::exchange(first, false) ? to_upper(c) : to_lower(c); });
}

std::string replace_all(Bounds& bounds, std::string_view text, std::string_view from, std::string_view to, int64_t most) {
  std::string out;
  size_t at = 0;
  while (most != 0) {
    bounds.step();
    // An empty `from` stands before every character and at the end.
    const size_t found = from.empty() ? at : text.find(from, at);
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
