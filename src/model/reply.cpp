// One machine for streams and whole replies: text is held back only while it may still begin a stop text or a tag.
#include "model/reply.h"

#include <algorithm>

namespace hadal {
namespace {

constexpr std::string_view opening = "<think>", closing = "</think>";

// The length of the longest end of `text` that begins `word` without being all of it.
size_t overlap(std::string_view text, std::string_view word) {
  if (word.empty()) return 0;
  for (size_t size = std::min(text.size(), word.size() - 1); size > 0; --size) {
    if (text.ends_with(word.substr(0, size))) return size;
  }
  return 0;
}

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

std::string_view trim_newlines(std::string_view text) {
  const size_t first = text.find_first_not_of("\r\n");
  return first == std::string_view::npos ? std::string_view() : text.substr(first);
}

}  // namespace

ReplyStream::ReplyStream(const Tokenizer& tokenizer, std::vector<std::string> stops, bool starts_in_reasoning, bool separate_reasoning,
                         std::optional<CallStyle> calls)
    : tokenizer_(tokenizer),
      stops_(std::move(stops)),
      reasoning_(starts_in_reasoning && separate_reasoning),
      separate_(separate_reasoning),
      after_tag_(reasoning_) {
  std::erase(stops_, "");
  if (calls) calls_.emplace(*calls);
}

std::vector<ReplyPiece> ReplyStream::push(int32_t token) {
  if (stopped_) return {};
  const std::string_view bytes = tokenizer_.bytes(token);
  const bool is_tag = bytes == opening || bytes == closing || (calls_ && ToolCallParser::is_marker(bytes));
  if (tokenizer_.is_special(token) && !is_tag) {
    if (std::find(stops_.begin(), stops_.end(), bytes) == stops_.end()) return {};
    std::vector<ReplyPiece> pieces = finish();
    stopped_ = true;
    stop_ = bytes;
    return pieces;
  }
  held_ += characters_.push(bytes);
  return advance(false);
}

std::vector<ReplyPiece> ReplyStream::finish() {
  if (stopped_) return {};
  held_ += characters_.finish();
  std::vector<ReplyPiece> pieces = advance(true);
  if (calls_ && !stopped_) calls_->finish(pieces);
  return pieces;
}

std::vector<ReplyPiece> ReplyStream::advance(bool last) {
  std::vector<ReplyPiece> pieces;
  for (;;) {
    // Whichever of the words comes first; of two at one place, a stop.
    size_t at = std::string::npos, size = 0, hold = 0;
    bool tag = false;
    const auto look_for = [&](std::string_view word, bool is_tag) {
      const size_t found = held_.find(word);
      hold = std::max(hold, overlap(held_, word));
      if (found >= at) return;
      at = found;
      size = word.size();
      tag = is_tag;
    };
    for (const std::string& stop : stops_) look_for(stop, false);
    // Only a reply's beginning opens reasoning: later the tag is text that the answer talks about.
    const size_t tag_at = std::min(held_.find('<'), held_.size());
    const bool may_open = separate_ && !reasoning_ && !begun_ && is_blank(std::string_view(held_).substr(0, tag_at));
    if (separate_ && reasoning_) look_for(closing, true);
    if (may_open) look_for(opening, true);

    if (at == std::string::npos) {
      // White space before the tag is dropped, so it waits for what follows.
      if (may_open && !last && opening.starts_with(std::string_view(held_).substr(tag_at))) return pieces;
      const size_t ready = last ? held_.size() : held_.size() - hold;
      show(std::string_view(held_).substr(0, ready), pieces);
      held_.erase(0, ready);
      return pieces;
    }
    const std::string before = held_.substr(0, at);
    if (!tag || reasoning_) show(before, pieces);
    if (!tag) stop_ = held_.substr(at, size);
    held_.erase(0, at + size);
    if (!tag) {
      held_.clear();
      if (calls_) calls_->finish(pieces);
      stopped_ = true;
      return pieces;
    }
    reasoning_ = !reasoning_;
    begun_ = true;
    after_tag_ = true;
  }
}

void ReplyStream::show(std::string_view text, std::vector<ReplyPiece>& pieces) {
  if (after_tag_) text = trim_newlines(text);
  if (text.empty()) return;
  after_tag_ = false;
  if (!is_blank(text)) begun_ = true;
  if (calls_ && !reasoning_) return calls_->push(text, pieces);
  const ReplyPiece::Kind kind = reasoning_ ? ReplyPiece::Kind::reasoning : ReplyPiece::Kind::answer;
  if (!pieces.empty() && pieces.back().kind == kind) {
    pieces.back().text += text;
  } else {
    pieces.push_back({kind, std::string(text)});
  }
}

Reply split_reasoning(std::string_view text, bool starts_in_reasoning) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (!starts_in_reasoning && (first == std::string_view::npos || !text.substr(first).starts_with(opening))) return {"", std::string(text)};
  if (!starts_in_reasoning) text.remove_prefix(first + opening.size());
  text = trim_newlines(text);
  const size_t end = text.find(closing);
  if (end == std::string_view::npos) return {std::string(text), ""};
  return {std::string(text.substr(0, end)), std::string(trim_newlines(text.substr(end + closing.size())))};
}

bool prompt_opens_reasoning(std::string_view prompt) {
  const size_t at = prompt.rfind(opening);
  return at != std::string_view::npos && is_blank(prompt.substr(at + opening.size()));
}

}  // namespace hadal
