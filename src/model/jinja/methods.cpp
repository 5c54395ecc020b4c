// Methods of Python's str, dict and list; those that change their object are out of reach, as in Jinja's immutable sandbox.
#include <algorithm>

#include "core/error.h"
#include "model/jinja/library.h"
#include "model/jinja/text.h"

namespace hadal::jinja {
namespace {

const std::string& text_argument(const Arguments& arguments, size_t position, std::string_view name, std::string_view who) {
  const Value* value = arguments.find(position, name);
  if (!value) throw Error("{} takes a text as argument {}", who, position + 1);
  if (const Undefined* undefined = value->get<Undefined>()) refuse(*undefined);
  if (!value->text()) throw Error("{}: a text is expected, found '{}'", who, type_name(*value));
  return *value->text();
}

template <std::string_view (*Left)(std::string_view), std::string_view (*Right)(std::string_view),
          std::string_view (*LeftOf)(std::string_view, std::string_view), std::string_view (*RightOf)(std::string_view, std::string_view)>
Value strip(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("strip", 1);
  const bool given = !arguments.positional.empty() && !arguments.positional[0].is_none();
  if (!given) return make_text(bounds, std::string(Left(Right(*self.text()))));
  const std::string& characters = text_argument(arguments, 0, "", "strip");
  bounds.step(int64_t(self.text()->size() / 64 * (1 + characters.size())));
  return make_text(bounds, std::string(LeftOf(RightOf(*self.text(), characters), characters)));
}
std::string_view keep(std::string_view text) { return text; }
std::string_view keep(std::string_view text, std::string_view) { return text; }

Value list_of(Bounds& bounds, const std::vector<std::string_view>& texts) {
  Values items;
  for (const std::string_view text : texts) items.push_back(make_text(bounds, std::string(text)));
  return make_sequence(bounds, std::move(items));
}

std::vector<std::string_view> split_words(std::string_view text, int64_t most) {
  std::vector<std::string_view> words;
  for (text = strip_left(text); !text.empty(); text = strip_left(text)) {
    size_t end = 0;
    while (end < text.size() && !is_space(character_at(text, end))) end += character_size(text, end);
    if (most >= 0 && int64_t(words.size()) == most) {
      words.push_back(strip_right(text));
      break;
    }
    words.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return words;
}

std::vector<std::string_view> split_words_right(std::string_view text, int64_t most) {
  std::vector<std::string_view> words;
  for (text = strip_right(text); !text.empty(); text = strip_right(text)) {
    if (most >= 0 && int64_t(words.size()) == most) {
      words.push_back(strip_left(text));
      break;
    }
    size_t start = 0;
    for (size_t at = 0; at < text.size(); at += character_size(text, at)) {
      if (is_space(character_at(text, at))) start = at + character_size(text, at);
    }
    words.push_back(text.substr(start));
    text = text.substr(0, start);
  }
  std::reverse(words.begin(), words.end());
  return words;
}

template <bool right>
Value split(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("split", 2, {"sep", "maxsplit"});
  const Value *separator = arguments.find(0, "sep"), *limit = arguments.find(1, "maxsplit");
  const int64_t most = limit ? count_of(*limit, "maxsplit") : -1;
  std::string_view text = *self.text();
  bounds.make(text.size() * sizeof(std::string_view));  // as many parts as it can have at most
  if (!separator || separator->is_none()) {
    if (right && most >= 0) bounds.step(int64_t(text.size()) * std::min<int64_t>(most + 1, int64_t(text.size())) / 16);
    return list_of(bounds, right && most >= 0 ? split_words_right(text, most) : split_words(text, most));
  }
  const std::string& by = text_argument(arguments, 0, "sep", "split");
  if (by.empty()) throw Error("split: empty separator");
  std::vector<std::string_view> parts;
  while (most < 0 || int64_t(parts.size()) < most) {
    const size_t at = right ? find_last_text(bounds, text, by) : find_text(bounds, text, by);
    if (at == std::string_view::npos) break;
    parts.push_back(right ? text.substr(at + by.size()) : text.substr(0, at));
    text = right ? text.substr(0, at) : text.substr(at + by.size());
  }
  parts.push_back(text);
  if (right) std::reverse(parts.begin(), parts.end());
  return list_of(bounds, parts);
}

template <bool right>
Value partition(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("partition", 1);
  const std::string &text = *self.text(), &by = text_argument(arguments, 0, "", "partition");
  if (by.empty()) throw Error("partition: empty separator");
  const size_t at = right ? find_last_text(bounds, text, by) : find_text(bounds, text, by);
  const auto tuple = [&](std::string a, std::string b, std::string c) {
    return make_sequence(bounds, {make_text(bounds, std::move(a)), make_text(bounds, std::move(b)), make_text(bounds, std::move(c))}, true);
  };
  if (at == std::string::npos) return right ? tuple("", "", text) : tuple(text, "", "");
  return tuple(text.substr(0, at), by, text.substr(at + by.size()));
}

Value splitlines(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("splitlines", 1, {"keepends"});
  bounds.make(self.text()->size() * sizeof(std::string_view));
  const Value* keep_ends = arguments.find(0, "keepends");
  return list_of(bounds, split_lines(*self.text(), keep_ends && is_true(*keep_ends)));
}

// The part of a text that optional start and end arguments leave.
std::pair<std::string_view, size_t> part_of(Bounds& bounds, const Value& self, const Arguments& arguments) {  // and its first byte
  const std::string_view text = *self.text();
  if (arguments.positional.size() < 2) return {text, 0};
  bounds.step(int64_t(text.size() / 16));
  const int64_t size = int64_t(character_count(text));
  const auto index = [&](size_t position, int64_t missing) {
    if (position >= arguments.positional.size() || arguments.positional[position].is_none()) return missing;
    const int64_t given = count_of(arguments.positional[position], "an index");
    return std::clamp<int64_t>(given < 0 ? given + size : given, 0, size);
  };
  const int64_t start = index(1, 0), end = std::max(start, index(2, size));
  size_t from = 0;
  for (int64_t i = 0; i < start; ++i) from += character_size(text, from);
  size_t to = from;
  for (int64_t i = start; i < end; ++i) to += character_size(text, to);
  return {text.substr(from, to - from), from};
}

template <bool right>
Value starts_with(Bounds& bounds, const Value& self, const Arguments& arguments) {
  const std::string_view who = right ? "endswith" : "startswith";
  arguments.check(who, 3);
  const std::string_view text = part_of(bounds, self, arguments).first;
  const auto fits = [&](std::string_view piece) { return right ? text.ends_with(piece) : text.starts_with(piece); };
  if (!arguments.positional.empty() && arguments.positional[0].sequence() && arguments.positional[0].sequence()->tuple) {
    for (const Value& piece : arguments.positional[0].sequence()->items) {
      bounds.step();
      if (!piece.text()) throw Error("{}: texts are expected, found '{}'", who, type_name(piece));
      if (fits(*piece.text())) return Value(true);
    }
    return Value(false);
  }
  return Value(fits(text_argument(arguments, 0, "", who)));
}

template <bool right, bool must>
Value find(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("find", 3);
  bounds.step(int64_t(self.text()->size() / 16));
  const auto [text, from] = part_of(bounds, self, arguments);
  const std::string& piece = text_argument(arguments, 0, "", "find");
  const size_t at = right ? find_last_text(bounds, text, piece) : find_text(bounds, text, piece);
  if (at != std::string_view::npos) return Value(Integer(character_count(std::string_view(*self.text()).substr(0, from + at))));
  if (must) throw Error("substring not found");
  return Value(Integer(-1));
}

Value count(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("count", 3);
  const std::string_view text = part_of(bounds, self, arguments).first;
  const std::string& piece = text_argument(arguments, 0, "", "count");
  bounds.step(int64_t(text.size() / 16));
  if (piece.empty()) return Value(Integer(character_count(text) + 1));
  Integer found = 0;
  for (size_t at = find_text(bounds, text, piece); at != std::string_view::npos; at = find_text(bounds, text, piece, at + piece.size()))
    ++found;
  return Value(found);
}

Value replace(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("replace", 3, {"count"});
  const Value* most = arguments.find(2, "count");
  const std::string &from = text_argument(arguments, 0, "", "replace"), &to = text_argument(arguments, 1, "", "replace");
  return make_text(bounds, replace_all(bounds, *self.text(), from, to, most ? count_of(*most, "count") : -1));
}

Value join(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("join", 1);
  if (arguments.positional.empty()) throw Error("join takes exactly one argument");
  std::string text;
  bool first = true;
  for (const Value& item : items_of(bounds, arguments.positional[0])) {
    if (!item.text()) throw Error("join: texts are expected, found '{}'", type_name(item));
    bounds.make(item.text()->size() + self.text()->size());
    if (!std::exchange(first, false)) text += *self.text();
    text += *item.text();
  }
  return make_text(bounds, std::move(text));
}

template <std::string (*Map)(std::string_view)>
Value mapped(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("a method of str", 0);
  bounds.step(int64_t(self.text()->size() / 8));
  return make_text(bounds, Map(*self.text()));
}

bool is_letter(char32_t c) { return category(c)[0] == 'L'; }
bool is_digit(char32_t c) { return category(c) == "Nd"; }
bool is_cased(char32_t c) { return category(c) == "Lu" || category(c) == "Ll" || category(c) == "Lt"; }

std::string title(std::string_view text) {  // a letter with a case begins a word after anything without
  std::string out;
  bool within = false;
  for (size_t at = 0; at < text.size(); at += character_size(text, at)) {
    const char32_t c = character_at(text, at);
    append_character(out, within ? to_lower(c) : to_title(c));
    within = is_cased(c);
  }
  return out;
}
std::string swap_case(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size(); at += character_size(text, at)) {
    const char32_t c = character_at(text, at);
    append_character(out, category(c) == "Ll" ? to_upper(c) : to_lower(c));
  }
  return out;
}

template <bool (*Holds)(char32_t)>
Value every(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("a method of str", 0);
  const std::string& text = *self.text();
  bounds.step(int64_t(text.size() / 16));
  for (size_t at = 0; at < text.size(); at += character_size(text, at)) {
    if (!Holds(character_at(text, at))) return Value(false);
  }
  return Value(!text.empty());
}
bool is_alphanumeric(char32_t c) { return is_letter(c) || category(c)[0] == 'N'; }

template <bool upper>
Value cased(Bounds& bounds, const Value& self, const Arguments& arguments) {  // at least one letter of this case, and none of another
  arguments.check("a method of str", 0);
  const std::string& text = *self.text();
  bounds.step(int64_t(text.size() / 16));
  bool any = false;
  for (size_t at = 0; at < text.size(); at += character_size(text, at)) {
    const char32_t c = character_at(text, at);
    if (!is_cased(c)) continue;
    if (category(c) != (upper ? "Lu" : "Ll")) return Value(false);
    any = true;
  }
  return Value(any);
}

template <bool right>
Value remove_affix(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("removeprefix", 1);
  const std::string_view text = *self.text(), piece = text_argument(arguments, 0, "", "removeprefix");
  if (right) return make_text(bounds, std::string(text.ends_with(piece) ? text.substr(0, text.size() - piece.size()) : text));
  return make_text(bounds, std::string(text.starts_with(piece) ? text.substr(piece.size()) : text));
}

Value format(Bounds& bounds, const Value& self, const Arguments& arguments) {  // {} {0} {name}
  const std::string& text = *self.text();
  std::string out;
  size_t next = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if ((c == '{' || c == '}') && at + 1 < text.size() && text[at + 1] == c) {
      out += c;
      ++at;
    } else if (c == '}') {
      throw Error("format: single '}}' in '{}'", text);
    } else if (c != '{') {
      out += c;
    } else {
      const size_t end = text.find('}', at);
      if (end == std::string::npos) throw Error("format: '{{' is not closed in '{}'", text);
      const std::string field = text.substr(at + 1, end - at - 1);
      const bool number =
          !field.empty() && field.size() < 6 && std::all_of(field.begin(), field.end(), [](char d) { return d >= '0' && d <= '9'; });
      if (!number && field.find_first_of(".[!:") != std::string::npos) throw Error("format: field '{{{}}}' is not known", field);
      const size_t position = field.empty() ? next++ : number ? size_t(std::stoi(field)) : arguments.positional.size();
      const Value* value = arguments.find(position, number ? "" : field);
      if (!value) throw Error("format: no argument for '{{{}}}'", field);
      out += write(bounds, *value);
      at = end;
    }
    if (out.size() > size_t(bounds.value_bytes)) break;  // make_text refuses it
  }
  return make_text(bounds, std::move(out));
}

Value dict_keys(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("keys", 0);
  return make_sequence(bounds, items_of(bounds, self));
}
Value dict_values(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("values", 0);
  Values values;
  for (const auto& [key, value] : self.dict()->items) values.push_back(value);
  return make_sequence(bounds, std::move(values));
}
Value dict_items(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("items", 0);
  Values pairs;
  for (const auto& [key, value] : self.dict()->items) pairs.push_back(make_sequence(bounds, {key, value}, true));
  return make_sequence(bounds, std::move(pairs));
}
Value dict_get(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("get", 2);
  if (arguments.positional.empty()) throw Error("get expected at least 1 argument, got 0");
  if (const Value* value = self.dict()->find(bounds, arguments.positional[0])) return *value;
  return arguments.positional.size() > 1 ? arguments.positional[1] : Value(None{});
}
Value copy(Bounds&, const Value& self, const Arguments& arguments) {
  arguments.check("copy", 0);
  return self;
}
Value list_index(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("index", 1);
  const Values& items = self.sequence()->items;
  for (size_t i = 0; i < items.size() && !arguments.positional.empty(); ++i) {
    if (equal(bounds, items[i], arguments.positional[0])) return Value(Integer(i));
  }
  throw Error("index: the value is not in the list");
}
Value list_count(Bounds& bounds, const Value& self, const Arguments& arguments) {
  arguments.check("count", 1);
  if (arguments.positional.empty()) throw Error("count takes exactly one argument");
  Integer found = 0;
  for (const Value& item : self.sequence()->items) found += equal(bounds, item, arguments.positional[0]);
  return Value(found);
}

struct Entry {
  std::string_view name;
  Method method;
};
constexpr Entry text_methods[] = {
    {"strip", strip<strip_left, strip_right, strip_left, strip_right>},
    {"lstrip", strip<strip_left, keep, strip_left, keep>},
    {"rstrip", strip<keep, strip_right, keep, strip_right>},
    {"split", split<false>},
    {"rsplit", split<true>},
    {"partition", partition<false>},
    {"rpartition", partition<true>},
    {"splitlines", splitlines},
    {"startswith", starts_with<false>},
    {"endswith", starts_with<true>},
    {"find", find<false, false>},
    {"rfind", find<true, false>},
    {"index", find<false, true>},
    {"rindex", find<true, true>},
    {"count", count},
    {"replace", replace},
    {"join", join},
    {"upper", mapped<upper>},
    {"lower", mapped<lower>},
    {"casefold", mapped<lower>},
    {"capitalize", mapped<capitalize>},
    {"title", mapped<title>},
    {"swapcase", mapped<swap_case>},
    {"isdigit", every<is_digit>},
    {"isdecimal", every<is_digit>},
    {"isnumeric", every<is_digit>},
    {"isalpha", every<is_letter>},
    {"isalnum", every<is_alphanumeric>},
    {"isspace", every<is_space>},
    {"isupper", cased<true>},
    {"islower", cased<false>},
    {"removeprefix", remove_affix<false>},
    {"removesuffix", remove_affix<true>},
    {"format", format},
};
constexpr Entry dict_methods[] = {{"keys", dict_keys}, {"values", dict_values}, {"items", dict_items}, {"get", dict_get}, {"copy", copy}};
constexpr Entry list_methods[] = {{"index", list_index}, {"count", list_count}, {"copy", copy}};
constexpr std::string_view unsafe_of_dict[] = {"clear", "pop", "popitem", "setdefault", "update"};
constexpr std::string_view unsafe_of_list[] = {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"};

template <size_t n>
Method find_in(const Entry (&entries)[n], std::string_view name) {
  const auto entry = std::find_if(std::begin(entries), std::end(entries), [&](const Entry& e) { return e.name == name; });
  return entry == std::end(entries) ? nullptr : entry->method;
}

template <size_t n>
bool is_among(const std::string_view (&names)[n], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

}  // namespace

Method find_method(const Value& of, std::string_view name) {
  if (of.text()) return find_in(text_methods, name);
  if (of.dict()) return find_in(dict_methods, name);
  if (!of.sequence() || (of.sequence()->tuple && name == "copy")) return nullptr;
  return find_in(list_methods, name);
}

std::optional<Value> method_of(Bounds& bounds, const Value& of, const std::string& name) {
  const bool list = of.sequence() && !of.sequence()->tuple;
  if (name.starts_with("__") || (of.dict() && is_among(unsafe_of_dict, name)) || (list && is_among(unsafe_of_list, name))) {
    return make_undefined(fmt::format("access to attribute '{}' of '{}' object is unsafe", name, type_name(of)));
  }
  const Method method = find_method(of, name);
  if (!method) return std::nullopt;
  bounds.make(sizeof(Callable));
  return make_function(
      name, [&bounds, method, of](const Arguments& arguments) { return method(bounds, of, arguments); }, of.depth() + 1);
}

}  // namespace hadal::jinja
