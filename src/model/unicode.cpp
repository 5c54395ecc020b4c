// UTF-8 decoding after table 3-7 of the Unicode standard: no overlong forms, no surrogates, nothing above U+10FFFF.
#include "model/unicode.h"

#include <cstring>

namespace hadal {

Utf8Step utf8_step(std::string_view text) {
  const auto byte = [&](size_t i) { return uint8_t(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {Utf8Step::whole, 1, lead};
  if (lead < 0xc2 || lead > 0xf4) return {Utf8Step::broken, 1, 0};
  const uint8_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  // Only the second byte has a range of its own; it is what rules out overlong forms, surrogates and too large numbers.
  const uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80, high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  uint32_t point = lead & (0x7f >> length);
  for (uint8_t i = 1; i < length; i++) {
    if (i == text.size()) return {Utf8Step::cut, i, 0};
    if (byte(i) < (i == 1 ? low : 0x80) || byte(i) > (i == 1 ? high : 0xbf)) return {Utf8Step::broken, i, 0};
    point = point << 6 | (byte(i) & 0x3f);
  }
  return {Utf8Step::whole, length, point};
}

size_t valid_utf8_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint64_t eight;
    if (at + 8 <= text.size() && (std::memcpy(&eight, text.data() + at, 8), (eight & 0x8080808080808080) == 0)) {
      at += 8;
      continue;
    }
    const Utf8Step step = utf8_step(text.substr(at));
    if (step.kind != Utf8Step::whole) break;
    at += step.bytes;
  }
  return at;
}

void append_utf8(uint32_t point, std::string& out) {
  if (point < 0x80) {
    out += char(point);
    return;
  }
  if (point >= 0x10000) {
    out += char(0xf0 | point >> 18);
    out += char(0x80 | (point >> 12 & 0x3f));
  } else if (point >= 0x800) {
    out += char(0xe0 | point >> 12);
  } else {
    out += char(0xc0 | point >> 6);
  }
  if (point >= 0x800) out += char(0x80 | (point >> 6 & 0x3f));
  out += char(0x80 | (point & 0x3f));
}

}  // namespace hadal
