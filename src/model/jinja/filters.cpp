// Filters of one value: texts, numbers, JSON.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "core/error.h"
#include "model/jinja/library.h"
#include "model/jinja/text.h"

namespace hadal::jinja {
namespace {

std::string text_or(Bounds& bounds, const Arguments& arguments, size_t position, std::string_view name, std::string missing) {
  const Value* value = arguments.find(position, name);
  return value ? write(bounds, *value) : missing;
}

// A filter that is a method of the value's text.
Value by_method(Bounds& bounds, std::string_view name, const Value& of, const Arguments& arguments) {
  const Value text = of.text() ? of : make_text(bounds, write(bounds, of));
  return find_method(text, name)(bounds, text, arguments);
}
Value upper_filter(Bounds& bounds, const Value& of, const Arguments& a) { return by_method(bounds, "upper", of, a); }
Value lower_filter(Bounds& bounds, const Value& of, const Arguments& a) { return by_method(bounds, "lower", of, a); }
Value capitalize_filter(Bounds& bounds, const Value& of, const Arguments& a) { return by_method(bounds, "capitalize", of, a); }
Value trim_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("trim", 1, {"chars"});
  return by_method(bounds, "strip", of, a.find(0, "chars") ? Arguments{{*a.find(0, "chars")}, {}} : Arguments{});
}

Value title_filter(Bounds& bounds, const Value& of, const Arguments& a) {  // words begin after spaces, '-' and opening brackets
  a.check("title", 0);
  std::string out;
  bool begins = true;
  const std::string text = write(bounds, of);
  bounds.step(int64_t(text.size() / 8));
  for (size_t at = 0; at < text.size(); at += character_size(text, at)) {
    const std::string_view character = std::string_view(text).substr(at, character_size(text, at));
    const char32_t c = character_at(text, at);
    out += begins ? upper(character) : lower(character);
    begins = is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  }
  return make_text(bounds, std::move(out));
}

Value replace_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("replace", 3, {"old", "new", "count"});
  const Value *from = a.find(0, "old"), *to = a.find(1, "new"), *most = a.find(2, "count");
  if (!from || !to) throw Error("replace takes two texts");
  return make_text(bounds, replace_all(bounds, write(bounds, of), write(bounds, *from), write(bounds, *to),
                                       most && !most->is_none() ? count_of(*most, "count") : -1));
}

Value indent_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("indent", 3, {"width", "first", "blank"});
  if (const Undefined* undefined = of.get<Undefined>()) refuse(*undefined);
  if (!of.text()) throw Error("indent: a text is expected, found '{}'", type_name(of));
  const Value *width = a.find(0, "width"), *first = a.find(1, "first"), *blank = a.find(2, "blank");
  const int64_t count = !width || width->text() ? 4 : std::max<int64_t>(count_of(*width, "width"), 0);
  if (count > 10'000) throw Error("indent: a width of {} is too much", count);
  const std::string space = width && width->text() ? *width->text() : std::string(size_t(count), ' ');
  // Jinja ends the text with a newline before it splits, which keeps an empty last line.
  const std::string text = *of.text() + "\n";
  bounds.make(text.size() * sizeof(std::string_view));
  std::string out = first && is_true(*first) ? space : "";
  const std::vector<std::string_view> lines = split_lines(text);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i > 0 && (!lines[i].empty() || (blank && is_true(*blank)))) out += space;
    out += lines[i];
    if (out.size() > size_t(bounds.value_bytes)) break;  // make_text refuses it
  }
  return make_text(bounds, std::move(out));
}

Value escape_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("escape", 0);
  std::string out;
  for (const char c : write(bounds, of)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return make_text(bounds, std::move(out));
}

Value string_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("string", 0);
  return of.text() ? of : make_text(bounds, write(bounds, of));
}

Value wordcount_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("wordcount", 0);
  const std::string text = write(bounds, of);
  Integer count = 0;
  bool within = false;
  bounds.step(int64_t(text.size() / 16));
  for (size_t at = 0; at < text.size(); at += character_size(text, at)) {
    const char32_t c = character_at(text, at);
    const bool word = c == '_' || category(c)[0] == 'L' || category(c)[0] == 'N';
    count += word && !within;
    within = word;
  }
  return Value(count);
}

Value urlencode_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("urlencode", 0);
  if (of.dict() || of.sequence()) throw Error("urlencode of a '{}' is not known", type_name(of));
  std::string out;
  for (const char c : write(bounds, of)) {
    const bool plain =
        (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && std::string_view("_.-~/").find(c) < 5);
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", uint8_t(c));
  }
  return make_text(bounds, std::move(out));
}

Value format_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  if (!a.named.empty()) throw Error("format with names is not known");
  return make_text(bounds, format_text(bounds, write(bounds, of), a.positional));
}

Value default_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("default", 2, {"default_value", "boolean"});
  const Value *other = a.find(0, "default_value"), *boolean = a.find(1, "boolean");
  if (!of.is_undefined() && !(boolean && is_true(*boolean) && !is_true(of))) return of;
  return other ? *other : make_text(bounds, "");
}

Value safe_filter(Bounds&, const Value& of, const Arguments& a) {  // nothing is escaped unless asked for
  a.check("safe", 0);
  return of;
}

Value attr_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("attr", 1, {"name"});
  const Value* name = a.find(0, "name");
  if (!name || !name->text()) throw Error("attr takes the name of an attribute");
  if (of.dict()) return method_of(bounds, of, *name->text()).value_or(make_undefined(fmt::format("no attribute '{}'", *name->text())));
  return attribute_of(bounds, of, *name->text());
}

// A number as Python reads it from a text: white space around, '_' between digits.
std::optional<double> read_real(std::string_view text) {
  std::string digits;
  text = strip_left(strip_right(text));
  for (size_t i = 0; i < text.size(); ++i) {
    const bool between = i > 0 && i + 1 < text.size() && std::isdigit(uint8_t(text[i - 1])) && std::isdigit(uint8_t(text[i + 1]));
    if (text[i] == '_' && !between) return std::nullopt;
    if (text[i] == 'x' || text[i] == 'X' || text[i] == 'p' || text[i] == '(') return std::nullopt;
    if (text[i] != '_') digits += text[i];
  }
  if (digits.empty() || is_space(uint8_t(digits[0]))) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(digits.c_str(), &end);
  return end == digits.c_str() + digits.size() ? std::optional(value) : std::nullopt;
}

std::optional<Integer> read_integer(std::string_view text, int base) {
  text = strip_left(strip_right(text));
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  const std::string_view prefix = base == 16 ? "xX" : base == 8 ? "oO" : base == 2 ? "bB" : "";
  if (!prefix.empty() && text.size() > 2 && text[0] == '0' && prefix.find(text[1]) != prefix.npos) text.remove_prefix(2);
  if (text.empty() || text.front() == '_' || text.back() == '_' || text.find("__") != text.npos) return std::nullopt;
  Integer value = 0;
  for (const char c : text) {
    const char low = char(c | 0x20);
    const int digit = c >= '0' && c <= '9' ? c - '0' : low >= 'a' && low <= 'z' ? low - 'a' + 10 : 99;
    if (c == '_') continue;
    if (digit >= base) return std::nullopt;
    if (__builtin_mul_overflow(value, Integer(base), &value) || __builtin_add_overflow(value, Integer(digit), &value)) {
      throw Error("an integer is out of range");
    }
  }
  return negative ? -value : value;
}

std::optional<Integer> whole(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  if (std::fabs(value) > 1e38) throw Error("an integer is out of range");
  return Integer(value);
}

Value int_filter(Bounds&, const Value& of, const Arguments& a) {
  a.check("int", 2, {"default", "base"});
  const Value *missing = a.find(0, "default"), *radix = a.find(1, "base");
  const int64_t base = radix ? count_of(*radix, "base") : 10;
  if (base < 2 || base > 36) throw Error("int: a base of {} is not known", base);
  std::optional<Integer> value;
  if (of.text()) {
    value = read_integer(*of.text(), int(base));
    if (const auto real = read_real(*of.text()); !value && real) value = whole(*real);
  } else if (const double* v = of.get<double>()) {
    value = whole(*v);
  } else if (of.is_number()) {
    value = integer_of(of, "");
  } else if (const Undefined* undefined = of.get<Undefined>()) {
    refuse(*undefined);
  }
  return value ? Value(*value) : missing ? *missing : Value(Integer(0));
}

Value float_filter(Bounds&, const Value& of, const Arguments& a) {
  a.check("float", 1, {"default"});
  const Value* missing = a.find(0, "default");
  if (const Undefined* undefined = of.get<Undefined>()) refuse(*undefined);
  const std::optional<double> value = of.text() ? read_real(*of.text()) : of.is_number() ? std::optional(real_of(of)) : std::nullopt;
  return value ? Value(*value) : missing ? *missing : Value(0.0);
}

Value abs_filter(Bounds&, const Value& of, const Arguments& a) {
  a.check("abs", 0);
  if (const double* v = of.get<double>()) return Value(std::fabs(*v));
  const Integer value = integer_of(of, "abs");
  return value < 0 ? negate(of) : Value(value);
}

Value round_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("round", 2, {"precision", "method"});
  const Value* digits = a.find(0, "precision");
  const int64_t precision = digits ? count_of(*digits, "precision") : 0;
  const std::string method = text_or(bounds, a, 1, "method", "common");
  if (method != "common" && method != "ceil" && method != "floor") throw Error("round: method '{}' is not known", method);
  if (const Undefined* undefined = of.get<Undefined>()) refuse(*undefined);
  if (precision < -300 || precision > 300) throw Error("round: a precision of {} is too much", precision);
  if (method == "common" && !of.get<double>() && precision >= 0) return Value(integer_of(of, "round"));
  const double value = real_of(of), scale = std::pow(10.0, double(precision));
  if (!std::isfinite(value)) return of;
  if (method == "ceil") return Value(std::ceil(value * scale) / scale);
  if (method == "floor") return Value(std::floor(value * scale) / scale);
  if (precision < 0) throw Error("round: a negative precision is not known");
  // Printing rounds the exact binary value to even, as Python's round does.
  return Value(std::strtod(fmt::format("{:.{}f}", value, int(precision)).c_str(), nullptr));
}

Value tojson_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("tojson", 4, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  if (const Value* v = a.find(0, "ensure_ascii")) style.ensure_ascii = is_true(*v);
  if (const Value* v = a.find(1, "indent"); v && !v->is_none()) {
    style.lines = true;
    style.between_items.assign(1, ',');
    const int64_t width = v->text() ? 0 : std::max<int64_t>(count_of(*v, "indent"), 0);
    if (width > 1000) throw Error("tojson: an indent of {} is too much", width);
    style.indent = v->text() ? *v->text() : std::string(size_t(width), ' ');
  }
  if (const Value* v = a.find(2, "separators"); v && !v->is_none()) {
    const Values both = items_of(bounds, *v);
    if (both.size() != 2 || !both[0].text() || !both[1].text()) throw Error("tojson: separators are two texts");
    style.between_items = *both[0].text();
    style.after_key = *both[1].text();
  }
  if (const Value* v = a.find(3, "sort_keys")) style.sort_keys = is_true(*v);
  return make_text(bounds, write_json(bounds, of, style));
}

// Not Jinja's: the built-in templates take the arguments of tool calls apart with it.
Value fromjson_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("fromjson", 0);
  if (!of.text()) return of;
  return read_json(bounds, *of.text(), "fromjson: the text", bounds.shield);
}

struct Entry {
  std::string_view name;
  Filter filter;
};
constexpr Entry filters[] = {
    {"abs", abs_filter},
    {"attr", attr_filter},
    {"capitalize", capitalize_filter},
    {"d", default_filter},
    {"default", default_filter},
    {"e", escape_filter},
    {"escape", escape_filter},
    {"float", float_filter},
    {"format", format_filter},
    {"fromjson", fromjson_filter},
    {"indent", indent_filter},
    {"int", int_filter},
    {"lower", lower_filter},
    {"replace", replace_filter},
    {"round", round_filter},
    {"safe", safe_filter},
    {"string", string_filter},
    {"title", title_filter},
    {"tojson", tojson_filter},
    {"trim", trim_filter},
    {"upper", upper_filter},
    {"urlencode", urlencode_filter},
    {"wordcount", wordcount_filter},
};

}  // namespace

Filter find_text_filter(std::string_view name) {
  const auto entry = std::find_if(std::begin(filters), std::end(filters), [&](const Entry& e) { return e.name == name; });
  return entry == std::end(filters) ? nullptr : entry->filter;
}

Filter find_filter(std::string_view name) {
  if (const Filter filter = find_text_filter(name)) return filter;
  return find_sequence_filter(name);
}

std::string format_text(Bounds& bounds, const std::string& format, const Values& values) {
  std::string out;
  size_t next = 0;
  for (size_t at = 0; at < format.size(); ++at) {
    if (format[at] != '%') {
      out += format[at];
      continue;
    }
    size_t precision_at = 0;
    for (++at; at < format.size() && (format[at] == '.' || std::isdigit(uint8_t(format[at]))); ++at) {
      if (format[at] == '.') precision_at = at + 1;
    }
    if (at >= format.size()) throw Error("incomplete format '{}'", format);
    const char kind = format[at];
    if (kind == '%') {
      out += '%';
      continue;
    }
    if (next >= values.size()) throw Error("not enough arguments for format '{}'", format);
    const Value& value = values[next++];
    const bool plain = format[at - 1] == '%';
    if (kind == 's' && plain) {
      out += write(bounds, value);
    } else if (kind == 'r' && plain) {
      out += represent(bounds, value);
    } else if ((kind == 'd' || kind == 'i') && plain) {
      const std::optional<Integer> integer = value.get<double>() ? whole(*value.get<double>()) : integer_of(value, "%d");
      if (!integer) throw Error("%d: a finite number is expected");
      out += to_string(*integer);
    } else if (kind == 'f' && (plain || precision_at == at - 1)) {
      out += fmt::format("{:.{}f}", real_of(value), plain ? 6 : format[at - 1] - '0');
    } else {
      throw Error("format '{}' is not known", format);
    }
    if (out.size() > size_t(bounds.value_bytes)) break;
  }
  if (next < values.size()) throw Error("not all arguments converted during string formatting");
  return out;
}

}  // namespace hadal::jinja
