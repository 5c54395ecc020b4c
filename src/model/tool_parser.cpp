// From a reply's text back to its calls: text is held back only while it may still become part of one.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>

#include "model/tool_calls.h"

namespace hadal {
namespace {

constexpr size_t longest_head = 4096, longest_space = 256;  // bytes: what is longer is no call, or is shown
constexpr std::string_view spaces = " \t\r\n";

constexpr std::string_view tag_begin = "<tool_call>", tag_end = "</tool_call>";
constexpr std::string_view block_begin = "<｜tool▁calls▁begin｜>", block_end = "<｜tool▁calls▁end｜>";
constexpr std::string_view call_head = "<｜tool▁call▁begin｜>", call_tail = "<｜tool▁call▁end｜>", separator = "<｜tool▁sep｜>";
constexpr std::array<std::string_view, 2> dsml_begins{"<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"};
constexpr std::array<std::string_view, 2> dsml_ends{"</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"};
constexpr std::string_view dsml_call = "<｜DSML｜invoke name=\"", dsml_call_end = "</｜DSML｜invoke>";
constexpr std::string_view dsml_parameter = "<｜DSML｜parameter name=\"", dsml_parameter_end = "</｜DSML｜parameter>";

std::vector<std::string_view> begins_of(CallStyle style) {
  if (style == CallStyle::tagged_json) return {tag_begin};
  if (style == CallStyle::parameters) return {dsml_begins.begin(), dsml_begins.end()};
  return {block_begin, call_head};
}

// The length of the longest end of `text` that begins `word` without being all of it.
size_t overlap(std::string_view text, std::string_view word) {
  for (size_t size = std::min(text.size(), word.size() - 1); size > 0; --size)
    if (text.ends_with(word.substr(0, size))) return size;
  return 0;
}

void add(std::vector<ReplyPiece>& pieces, ReplyPiece::Kind kind, std::string text) {
  if (text.empty() && kind != ReplyPiece::Kind::call) return;
  if (!pieces.empty() && pieces.back().kind == kind && kind != ReplyPiece::Kind::call)
    pieces.back().text += text;
  else
    pieces.push_back({kind, std::move(text)});
}

std::string trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(spaces);
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(spaces) - first + 1));
}

std::string in_json_quotes(std::string_view text) {
  const std::string out = nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return out.substr(1, out.size() - 2);
}

size_t end_of_string(std::string_view text, size_t at) {  // behind the quote that closes what opens at `at`; npos: not there yet
  for (++at; at < text.size(); ++at) {
    if (text[at] == '\\')
      ++at;
    else if (text[at] == '"')
      return at + 1;
  }
  return std::string_view::npos;
}

size_t end_of_value(std::string_view text, size_t at) {  // npos: not there yet
  int64_t depth = 0;
  while (at < text.size()) {
    const char c = text[at];
    if (c == '"') {
      at = end_of_string(text, at);
      if (at == std::string_view::npos || depth == 0) return at;
      continue;
    }
    if (c == '{' || c == '[') ++depth;
    if ((c == '}' || c == ']') && --depth <= 0) return depth < 0 ? at : at + 1;
    if (depth == 0 && (c == ',' || spaces.find(c) != std::string_view::npos)) return at;
    ++at;
  }
  return std::string_view::npos;
}

}  // namespace

bool ToolCallParser::is_marker(std::string_view token) {
  static constexpr std::array<std::string_view, 8> all{tag_begin, tag_end,   block_begin, block_end,
                                                       call_head, call_tail, separator,   "｜DSML｜"};
  return std::find(all.begin(), all.end(), token) != all.end();
}

void ToolCallParser::push(std::string_view text, std::vector<ReplyPiece>& pieces) {
  held_ += text;
  while (step(pieces)) {
  }
}

void ToolCallParser::finish(std::vector<ReplyPiece>& pieces) {
  if (state_ == State::head || (state_ == State::between && !taken_.empty())) give_up(pieces);
  if (state_ == State::text) add(pieces, ReplyPiece::Kind::answer, called_ && trimmed(held_).empty() ? "" : held_);
  held_.clear();
}

bool ToolCallParser::step(std::vector<ReplyPiece>& pieces) {
  switch (state_) {
    case State::text:
      return take_text(pieces);
    case State::between:
      return take_between(pieces);
    case State::head:
      return style_ == CallStyle::tagged_json ? take_tagged_head(pieces) : take_head(pieces);
    case State::arguments:
      return take_arguments(pieces);
    case State::tail:
      return take_tail();
    case State::parameters:
      return take_parameters(pieces);
    case State::value:
      return take_value(pieces);
  }
  return false;
}

bool ToolCallParser::take_text(std::vector<ReplyPiece>& pieces) {
  if (called_) held_.erase(0, std::min(held_.find_first_not_of(spaces), held_.size()));  // white space behind a call belongs to it
  size_t at = std::string::npos, size = 0, hold = 0;
  for (const std::string_view begin : begins_of(style_)) {
    hold = std::max(hold, overlap(held_, begin));
    if (const size_t found = held_.find(begin); found < at) at = found, size = begin.size();
  }
  const bool begins = at != std::string::npos;
  const size_t end = begins ? at : held_.size() - hold;
  const size_t last = end == 0 ? std::string::npos : held_.find_last_not_of(spaces, end - 1);
  size_t shown = last == std::string::npos ? 0 : last + 1;  // so does white space before it
  if (!begins && end - shown > longest_space) shown = end;
  if (shown > 0) called_ = false;
  add(pieces, ReplyPiece::Kind::answer, held_.substr(0, shown));
  held_.erase(0, shown);
  if (!begins) return false;
  const bool block = style_ != CallStyle::tagged_json && std::string_view(held_).substr(end - shown, size) != call_head;
  taken_ = held_.substr(0, end - shown + size);
  held_.erase(0, taken_.size());
  state_ = block ? State::between : State::head;
  return true;
}

bool ToolCallParser::take_between(std::vector<ReplyPiece>& pieces) {
  held_.erase(0, std::min(held_.find_first_not_of(spaces), held_.size()));
  if (held_.empty()) return false;
  const bool dsml = style_ == CallStyle::parameters;
  const std::string_view begin = dsml ? dsml_call : call_head;
  if (starts_with(begin)) {
    taken_ += begin;
    held_.erase(0, begin.size());
    state_ = State::head;
    return true;
  }
  std::vector<std::string_view> ends{block_end};
  if (dsml) ends.assign(dsml_ends.begin(), dsml_ends.end());
  bool may_come = begin.starts_with(held_);
  for (const std::string_view end : ends) {
    if (starts_with(end)) {
      held_.erase(0, end.size());
      taken_.clear();
      state_ = State::text;
      return true;
    }
    may_come |= end.starts_with(held_);
  }
  return !may_come && give_up(pieces);
}

// It is no call after all: text.
bool ToolCallParser::give_up(std::vector<ReplyPiece>& pieces) {
  add(pieces, ReplyPiece::Kind::answer, std::exchange(taken_, {}));
  called_ = false;
  state_ = State::text;
  return true;
}

bool ToolCallParser::take_head(std::vector<ReplyPiece>& pieces) {
  const auto wait = [&] { return held_.size() > longest_head && give_up(pieces); };
  std::string name;
  size_t end = 0;
  if (style_ == CallStyle::parameters) {
    const size_t close = held_.find("\">");
    if (close == std::string::npos) return wait();
    name = held_.substr(0, close);
    end = close + 2;
  } else {
    const size_t split = held_.find(separator);
    if (split == std::string::npos) return wait();
    const size_t behind = split + separator.size();
    end = style_ == CallStyle::fenced_json ? held_.find('{', behind) : held_.find_first_not_of(spaces, behind);
    if (end == std::string::npos) return wait();
    name =
        trimmed(style_ == CallStyle::fenced_json ? std::string_view(held_).substr(behind, std::min(held_.find('\n', behind), end) - behind)
                                                 : std::string_view(held_).substr(0, split));
  }
  if (name.empty()) return give_up(pieces);
  add(pieces, ReplyPiece::Kind::call, name);
  held_.erase(0, end);
  taken_.clear();
  first_parameter_ = true;
  depth_ = 0, in_string_ = escaped_ = false;
  state_ = style_ == CallStyle::parameters ? State::parameters : State::arguments;
  return true;
}

// {"name": NAME, "arguments": up to where the arguments begin; in another order the whole object.
bool ToolCallParser::take_tagged_head(std::vector<ReplyPiece>& pieces) {
  const auto wait = [&] { return held_.size() > longest_head && give_up(pieces); };
  const std::string_view text = held_;
  const auto skip = [&](size_t at) { return at == std::string_view::npos ? at : text.find_first_not_of(spaces, at); };
  std::optional<std::string> name;
  size_t arguments = std::string_view::npos, arguments_end = std::string_view::npos, at = skip(0);
  if (at == std::string_view::npos) return wait();
  if (text[at] != '{') return give_up(pieces);
  for (at = skip(at + 1); at != std::string_view::npos && text[at] != '}';) {
    if (text[at] != '"') return give_up(pieces);
    const size_t key_end = end_of_string(text, at);
    const size_t colon = skip(key_end);
    if (colon == std::string_view::npos) return wait();
    const std::string_view key = text.substr(at, key_end - at);
    if (text[colon] != ':') return give_up(pieces);
    const size_t value = skip(colon + 1);
    if (value == std::string_view::npos) return wait();
    const bool is_arguments = key == "\"arguments\"" || key == "\"parameters\"";
    if (is_arguments && name) {
      arguments = value;
      break;
    }
    const size_t end = end_of_value(text, value);
    if (end == std::string_view::npos) return wait();
    if (is_arguments) arguments = value, arguments_end = end;
    if (key == "\"name\"") {
      const nlohmann::json parsed = nlohmann::json::parse(text.substr(value, end - value), nullptr, false);
      if (!parsed.is_string() || parsed.get<std::string>().empty()) return give_up(pieces);
      name = parsed.get<std::string>();
      if (arguments != std::string_view::npos) break;
    }
    at = skip(end);
    if (at != std::string_view::npos && text[at] == ',') at = skip(at + 1);
  }
  if (!name) return at == std::string_view::npos ? wait() : give_up(pieces);
  if (arguments == std::string_view::npos && at == std::string_view::npos) return wait();
  add(pieces, ReplyPiece::Kind::call, *name);
  taken_.clear();
  depth_ = 0, in_string_ = escaped_ = false;
  if (arguments == std::string_view::npos) {
    add(pieces, ReplyPiece::Kind::arguments, "{}");
    state_ = State::tail;
  } else if (arguments_end != std::string_view::npos) {
    add(pieces, ReplyPiece::Kind::arguments, held_.substr(arguments, arguments_end - arguments));
    held_.erase(0, arguments_end);
    state_ = State::tail;
  } else {
    held_.erase(0, arguments);
    state_ = State::arguments;
  }
  return true;
}

bool ToolCallParser::take_arguments(std::vector<ReplyPiece>& pieces) {
  for (size_t i = 0; i < held_.size(); ++i) {
    const char c = held_[i];
    if (escaped_) {
      escaped_ = false;
    } else if (in_string_) {
      escaped_ = c == '\\';
      in_string_ = c != '"';
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if (c == '}' || c == ']') {
      --depth_;
    }
    const bool whole = depth_ == 0 && !in_string_ && (c == '}' || c == ']');
    const bool none = depth_ <= 0 && !in_string_ && c == '<';  // no JSON, and the end of the call
    if (!whole && !none && depth_ >= 0) continue;
    add(pieces, ReplyPiece::Kind::arguments, held_.substr(0, whole ? i + 1 : i));
    held_.erase(0, whole ? i + 1 : i);
    state_ = State::tail;
    return true;
  }
  add(pieces, ReplyPiece::Kind::arguments, std::exchange(held_, {}));
  return false;
}

bool ToolCallParser::take_tail() {
  const std::string_view end = style_ == CallStyle::tagged_json ? tag_end : call_tail;
  const size_t at = held_.find(end);
  if (at == std::string::npos) {
    held_.erase(0, held_.size() - overlap(held_, end));
    return false;
  }
  held_.erase(0, at + end.size());
  called_ = true;
  state_ = style_ == CallStyle::tagged_json ? State::text : State::between;
  return true;
}

bool ToolCallParser::take_parameters(std::vector<ReplyPiece>& pieces) {
  held_.erase(0, std::min(held_.find_first_not_of(spaces), held_.size()));
  if (starts_with(dsml_call_end)) {
    add(pieces, ReplyPiece::Kind::arguments, first_parameter_ ? "{}" : "}");
    held_.erase(0, dsml_call_end.size());
    called_ = true;
    state_ = State::between;
    return true;
  }
  if (!starts_with(dsml_parameter)) {
    if (dsml_parameter.starts_with(held_) || dsml_call_end.starts_with(held_)) return false;
    held_.erase(0, std::max<size_t>(1, std::min(held_.find('<', 1), held_.size())));  // nothing that belongs here
    return true;
  }
  const size_t close = held_.find('>');
  if (close == std::string::npos) return false;
  const std::string_view tag = std::string_view(held_).substr(dsml_parameter.size(), close - dsml_parameter.size());
  const std::string_view name = tag.substr(0, tag.find('"'));
  text_value_ = tag.find("string=\"false\"") == std::string_view::npos;
  add(pieces, ReplyPiece::Kind::arguments, (first_parameter_ ? "{\"" : ", \"") + in_json_quotes(name) + (text_value_ ? "\": \"" : "\": "));
  first_parameter_ = false;
  held_.erase(0, close + 1);
  state_ = State::value;
  return true;
}

bool ToolCallParser::take_value(std::vector<ReplyPiece>& pieces) {
  const size_t at = held_.find(dsml_parameter_end);
  const size_t ready = at == std::string::npos ? held_.size() - overlap(held_, dsml_parameter_end) : at;
  const std::string value = held_.substr(0, ready);
  add(pieces, ReplyPiece::Kind::arguments, text_value_ ? in_json_quotes(value) : value);
  held_.erase(0, ready);
  if (at == std::string::npos) return false;
  if (text_value_) add(pieces, ReplyPiece::Kind::arguments, "\"");
  held_.erase(0, dsml_parameter_end.size());
  state_ = State::parameters;
  return true;
}

}  // namespace hadal
