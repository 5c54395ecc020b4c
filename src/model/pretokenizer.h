// Cuts a text into the pieces within which BPE merges, stage by stage as tokenizer.json lists them.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "model/regex.h"

namespace hadal {

enum class SplitBehavior { isolated, removed, merged_with_previous, merged_with_next, contiguous };

struct SplitStage {
  Regex pattern;
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;  // what lies between the matches counts as the matches
};

// The pre-tokenizer that GGUF knows only by name ("deepseek-llm", "qwen2", ...).
struct NamedPretokenizer {
  std::vector<SplitStage> stages;
  bool nfc = false, ignore_merges = false, adds_begin = false;  // what else the name stands for
};
NamedPretokenizer named_pretokenizer(std::string_view name);  // Error: an unknown name

SplitStage gpt2_stage();                               // ByteLevel with use_regex
SplitStage digits_stage(bool individual);              // Digits
SplitStage punctuation_stage(SplitBehavior behavior);  // Punctuation

// Calls piece(std::string_view) for every piece of `text` (valid UTF-8), in order; none is empty.
template <class F>
void split(const SplitStage& stage, std::string_view text, Regex::Scratch& scratch, F&& piece) {
  const bool inverted = stage.invert;
  std::string_view pending;  // of the pieces that are still growing: merged or contiguous ones
  bool pending_matches = false;
  const auto flush = [&] {
    if (!pending.empty()) piece(pending);
    pending = {};
  };
  const auto extend = [&](std::string_view part) {
    pending = pending.empty() ? part : std::string_view(pending.data(), pending.size() + part.size());
  };
  const auto next = [&](size_t first, size_t last, bool matches) {
    if (inverted) matches = !matches;
    const std::string_view part = text.substr(first, last - first);
    switch (stage.behavior) {
      case SplitBehavior::isolated:
        if (!part.empty()) piece(part);
        return;
      case SplitBehavior::removed:
        if (!part.empty() && !matches) piece(part);
        return;
      case SplitBehavior::contiguous:
        if (matches != pending_matches) flush();
        extend(part);
        break;
      case SplitBehavior::merged_with_previous:
        if (!matches || pending_matches) flush();
        extend(part);
        break;
      case SplitBehavior::merged_with_next:
        if (matches || !pending_matches) flush();
        extend(part);
        break;
    }
    pending_matches = matches;
  };

  size_t done = 0, from = 0;
  Regex::Span match;
  while (from <= text.size() && stage.pattern.find(text, from, match, scratch)) {
    if (match.first > done) next(done, match.first, false);
    next(match.first, match.last, true);
    done = from = match.last;
    if (match.first != match.last) continue;
    from++;  // an empty match: look on behind the next character
    while (from < text.size() && (text[from] & 0xc0) == 0x80) from++;
  }
  if (done < text.size()) next(done, text.size(), false);
  flush();
}

}  // namespace hadal
