// How values look when printed: Python's str and repr, and JSON both ways.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/jinja/text.h"
#include "model/unicode.h"

namespace hadal::jinja {
namespace {

bool is_printable(char32_t c) {
  const char group = category(c)[0];
  return c == ' ' || c == shield_mark || (group != 'C' && group != 'Z');
}

std::string represent_text(std::string_view text) {
  const bool doubled = text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = doubled ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const size_t size = character_size(text, at);
    const char32_t c = character_at(text, at);
    if (c == char32_t(quote) || c == '\\') {
      out += {'\\', char(c)};
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += {'\\', c == '\n' ? 'n' : c == '\r' ? 'r' : 't'};
    } else if (is_printable(c)) {
      out += text.substr(at, size);
    } else if (c < 0x100) {
      out += fmt::format("\\x{:02x}", uint32_t(c));
    } else {
      out += c < 0x10000 ? fmt::format("\\u{:04x}", uint32_t(c)) : fmt::format("\\U{:08x}", uint32_t(c));
    }
    at += size;
  }
  return out + quote;
}

struct Writer {
  Bounds& bounds;
  std::string out;

  void add(std::string_view text) {
    bounds.step(int64_t(1 + text.size() / 64));
    if (out.size() + text.size() > size_t(bounds.value_bytes)) bounds.make(size_t(bounds.value_bytes) + 1);
    out += text;
  }
  void repr(const Value& value) {
    if (value.text()) return add(represent_text(*value.text()));
    if (value.is_undefined()) return add("Undefined");
    if (const Sequence* s = value.sequence()) {
      add(s->tuple ? "(" : "[");
      for (size_t i = 0; i < s->items.size(); ++i) {
        if (i) add(", ");
        repr(s->items[i]);
      }
      if (s->tuple && s->items.size() == 1) add(",");
      return add(s->tuple ? ")" : "]");
    }
    if (const Dict* d = value.dict()) {
      add("{");
      for (size_t i = 0; i < d->items.size(); ++i) {
        if (i) add(", ");
        repr(d->items[i].first);
        add(": ");
        repr(d->items[i].second);
      }
      return add("}");
    }
    str(value);
  }
  void str(const Value& value) {
    if (value.text()) return add(*value.text());
    if (value.is_undefined()) return;
    if (value.is_none()) return add("None");
    if (const bool* v = value.get<bool>()) return add(*v ? "True" : "False");
    if (const Integer* v = value.get<Integer>()) return add(to_string(*v));
    if (const double* v = value.get<double>()) return add(write_real(*v));
    if (value.sequence() || value.dict()) return repr(value);
    throw Error("a value of type '{}' cannot be printed", type_name(value));
  }
};

struct JsonWriter {
  Writer to;
  const JsonStyle& style;

  void text(std::string_view text) {
    std::string quoted = "\"";
    for (size_t at = 0; at < text.size();) {
      const size_t size = character_size(text, at);
      const char32_t c = character_at(text, at);
      const size_t escape = std::string_view("\"\\\n\r\t\b\f").find(char(c));
      if (c < 0x80 && escape != std::string_view::npos) {
        quoted += {'\\', "\"\\nrtbf"[escape]};
      } else if (c < 0x20 || (style.ensure_ascii && c > 0x7e && c < 0x10000 && c != shield_mark)) {
        quoted += fmt::format("\\u{:04x}", uint32_t(c));
      } else if (style.ensure_ascii && c >= 0x10000) {
        quoted += fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + ((uint32_t(c) - 0x10000) >> 10), 0xdc00 + (uint32_t(c) & 0x3ff));
      } else {
        quoted += text.substr(at, size);
      }
      at += size;
    }
    to.add(quoted + '"');
  }
  static std::string number(double v) {
    if (std::isnan(v)) return "NaN";
    if (std::isinf(v)) return v < 0 ? "-Infinity" : "Infinity";
    return write_real(v);
  }
  void new_line(int level) {
    if (!style.lines) return;
    to.add("\n");
    for (int i = 0; i < level; ++i) to.add(style.indent);
  }
  void key(const Value& value) {
    if (value.text()) return text(*value.text());
    if (value.is_none()) return text("null");
    if (const bool* v = value.get<bool>()) return text(*v ? "true" : "false");
    if (const Integer* v = value.get<Integer>()) return text(to_string(*v));
    if (const double* v = value.get<double>()) return text(number(*v));
    throw Error("tojson: keys must be str, int, float, bool or None, not {}", type_name(value));
  }
  void write(const Value& value, int level) {
    if (value.text()) return value.is_json ? to.add(*value.text()) : text(*value.text());
    if (value.is_none()) return to.add("null");
    if (const bool* v = value.get<bool>()) return to.add(*v ? "true" : "false");
    if (const Integer* v = value.get<Integer>()) return to.add(to_string(*v));
    if (const double* v = value.get<double>()) return to.add(number(*v));
    if (const Sequence* s = value.sequence()) {
      if (s->items.empty()) return to.add("[]");
      to.add("[");
      for (size_t i = 0; i < s->items.size(); ++i) {
        if (i) to.add(style.between_items);
        new_line(level + 1);
        write(s->items[i], level + 1);
      }
      new_line(level);
      return to.add("]");
    }
    const Dict* d = value.dict();
    if (!d) throw Error("tojson: Object of type {} is not JSON serializable", type_name(value));
    if (d->items.empty()) return to.add("{}");
    Pairs items = d->items;
    if (style.sort_keys) {
      std::stable_sort(items.begin(), items.end(), [&](const auto& a, const auto& b) { return less(to.bounds, a.first, b.first); });
    }
    to.add("{");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i) to.add(style.between_items);
      new_line(level + 1);
      key(items[i].first);
      to.add(style.after_key);
      write(items[i].second, level + 1);
    }
    new_line(level);
    to.add("}");
  }
};

using EachText = std::function<std::string(const std::string&)>;

Value from_json(Bounds& bounds, const nlohmann::ordered_json& json, int depth, const EachText& each) {
  const auto text = [&](const std::string& said) { return make_text(bounds, each ? each(said) : said); };
  if (depth > max_data_depth) throw Error("nested more than {} deep", max_data_depth);
  bounds.step();
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::null:
      return Value(None{});
    case nlohmann::ordered_json::value_t::boolean:
      return Value(json.get<bool>());
    case nlohmann::ordered_json::value_t::number_integer:
      return Value(Integer(json.get<int64_t>()));
    case nlohmann::ordered_json::value_t::number_unsigned:
      return Value(Integer(json.get<uint64_t>()));
    case nlohmann::ordered_json::value_t::number_float:
      return Value(json.get<double>());
    case nlohmann::ordered_json::value_t::string:
      return text(json.get<std::string>());
    case nlohmann::ordered_json::value_t::array: {
      Values items;
      for (const auto& item : json) items.push_back(from_json(bounds, item, depth + 1, each));
      return make_sequence(bounds, std::move(items));
    }
    default: {
      Pairs items;
      for (const auto& [key, value] : json.items()) items.emplace_back(text(key), from_json(bounds, value, depth + 1, each));
      return make_dict(bounds, std::move(items));
    }
  }
}

}  // namespace

std::string write_real(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;  // shortest that reads back
  const std::string_view shortest(buffer, size_t(end - buffer));
  const size_t e = shortest.find('e');
  int exponent = 0;
  const size_t digits_from = e + 1 + (shortest[e + 1] == '+');
  std::from_chars(buffer + digits_from, end, exponent);
  if (exponent < -4 || exponent >= 16) return std::string(shortest);
  char plain[400];
  const auto plain_end = std::to_chars(plain, plain + sizeof plain, value, std::chars_format::fixed).ptr;
  std::string out(plain, plain_end);
  return out.find('.') == std::string::npos ? out + ".0" : out;
}

std::string write(Bounds& bounds, const Value& value) {
  if (value.text()) return *value.text();
  Writer writer{bounds, {}};
  writer.str(value);
  return std::move(writer.out);
}

std::string represent(Bounds& bounds, const Value& value) {
  Writer writer{bounds, {}};
  writer.repr(value);
  return std::move(writer.out);
}

std::string write_json(Bounds& bounds, const Value& value, const JsonStyle& style) {
  JsonWriter writer{{bounds, {}}, style};
  writer.write(value, 0);
  return std::move(writer.to.out);
}

Value read_json(Bounds& bounds, const std::string& text, std::string_view what, const EachText& each) {
  nlohmann::ordered_json json;
  try {
    json = nlohmann::ordered_json::parse(text);
  } catch (const nlohmann::json::exception& e) {
    throw Error("{} is not JSON: {}", what, e.what());
  }
  try {
    return from_json(bounds, json, 0, each);
  } catch (const Error& e) {
    throw Error("{}: {}", what, e.what());
  }
}

}  // namespace hadal::jinja
