// utf8proc normalises; most text needs nothing, so only the stretches that might are given to it.
#include "model/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "model/unicode.h"
#include "model/unicode_ranges.h"

namespace hadal {

namespace {

// Characters that form C leaves alone whatever stands before them. All are whole as they are, and none combines with what precedes it.
bool stays(uint32_t c) {
  return c < 0x300 || (c >= 0x400 && c < 0x483) || (c >= 0x3041 && c < 0x3097) || (c >= 0x30a1 && c < 0x3100) ||
         (c >= 0x3400 && c < 0xa000) || (c >= 0xac00 && c < 0xd7a4);
}

// Newer than the tables that the models were trained with: nothing combines with or moves across them.
bool is_barrier(uint32_t c) {
  if (c == 0x11a7) return true;  // no trailing consonant, but utf8proc 2.8 swallows it behind a Hangul syllable
  const auto after =
      std::upper_bound(std::begin(unknown_to_nfc), std::end(unknown_to_nfc), c, [](uint32_t p, CodeRange r) { return p < r.first; });
  return after != std::begin(unknown_to_nfc) && c <= (after - 1)->last;
}

void append_nfc(std::string_view text, std::string& out) {
  utf8proc_uint8_t* made = nullptr;
  const auto options = utf8proc_option_t(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const utf8proc_ssize_t bytes =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), utf8proc_ssize_t(text.size()), &made, options);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(made, &std::free);
  if (bytes < 0) throw std::bad_alloc();  // the only error that valid UTF-8 leaves
  out.append(reinterpret_cast<const char*>(made), size_t(bytes));
}

}  // namespace

std::string_view to_nfc(std::string_view text, std::string& room) {
  room.clear();
  size_t copied = 0, before = 0;  // before: where the last character that stays begins; the next may combine with it
  for (size_t at = 0; at < text.size();) {
    if (uint8_t(text[at]) < 0xcc) {  // U+0000 to U+02FF
      before = at;
      at += uint8_t(text[at]) < 0x80 ? 1 : 2;
      continue;
    }
    Utf8Step step = utf8_step(text.substr(at));
    if (stays(step.point) || is_barrier(step.point)) {
      before = is_barrier(step.point) ? at + step.bytes : at;
      at += step.bytes;
      continue;
    }
    size_t end = at;
    while (end < text.size() && !stays((step = utf8_step(text.substr(end))).point) && !is_barrier(step.point)) end += step.bytes;
    room.append(text, copied, before - copied);
    append_nfc(text.substr(before, end - before), room);
    copied = at = before = end;
  }
  if (copied == 0) return text;
  room.append(text, copied);
  return room;
}

}  // namespace hadal
