// Arithmetic, comparison, attributes, indices and slices, as Python has them.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "model/jinja/library.h"
#include "model/jinja/text.h"

namespace hadal::jinja {
namespace {

constexpr std::string_view signs[] = {"+", "-", "*", "/", "//", "%", "**"};

[[noreturn]] void unsupported(Operator op, const Value& a, const Value& b) {
  if (const Undefined* v = a.get<Undefined>()) refuse(*v);
  if (const Undefined* v = b.get<Undefined>()) refuse(*v);
  throw Error("unsupported operand type(s) for {}: '{}' and '{}'", signs[int(op)], type_name(a), type_name(b));
}

[[noreturn]] void overflow() { throw Error("an integer is out of range"); }

Integer floor_quotient(Integer a, Integer b) {
  if (b == -1) {
    Integer negated;
    if (__builtin_sub_overflow(Integer(0), a, &negated)) overflow();
    return negated;
  }
  const Integer quotient = a / b;
  return quotient - (a % b != 0 && (a < 0) != (b < 0));
}

double floor_remainder(double a, double b) {
  const double remainder = std::fmod(a, b);
  if (remainder == 0) return std::copysign(0.0, b);
  return (remainder < 0) != (b < 0) ? remainder + b : remainder;
}

double floor_quotient(double a, double b) {
  const double quotient = (a - floor_remainder(a, b)) / b;
  const double floored = std::floor(quotient);
  if (quotient == 0) return std::copysign(0.0, a / b);
  return quotient - floored > 0.5 ? floored + 1 : floored;
}

Integer power(Integer base, Integer exponent) {
  Integer result = 1;
  for (;;) {
    if (exponent & 1 && __builtin_mul_overflow(result, base, &result)) overflow();
    exponent >>= 1;
    if (exponent == 0) return result;
    if (__builtin_mul_overflow(base, base, &base)) overflow();
  }
}

Value apply_integers(Operator op, Integer a, Integer b) {
  Integer result = 0;
  switch (op) {
    case Operator::add:
      if (__builtin_add_overflow(a, b, &result)) overflow();
      return Value(result);
    case Operator::subtract:
      if (__builtin_sub_overflow(a, b, &result)) overflow();
      return Value(result);
    case Operator::multiply:
      if (__builtin_mul_overflow(a, b, &result)) overflow();
      return Value(result);
    case Operator::power:
      if (b < 0 && a == 0) throw Error("zero cannot be raised to a negative power");
      if (b < 0) return Value(std::pow(double(a), double(b)));
      if (a == 0 || a == 1) return Value(Integer(b == 0 ? 1 : a));
      if (a == -1) return Value(Integer(b & 1 ? -1 : 1));
      return Value(power(a, b));
    default:
      break;
  }
  if (b == 0) throw Error("division by zero");
  if (op == Operator::divide) return Value(double(a) / double(b));
  if (op == Operator::floor_divide) return Value(floor_quotient(a, b));
  return Value(b == -1 ? Integer(0) : Integer(a - floor_quotient(a, b) * b));
}

Value apply_reals(Operator op, double a, double b) {
  switch (op) {
    case Operator::add:
      return Value(a + b);
    case Operator::subtract:
      return Value(a - b);
    case Operator::multiply:
      return Value(a * b);
    case Operator::power: {
      if (a == 0 && b < 0) throw Error("zero cannot be raised to a negative power");
      const double result = std::pow(a, b);
      if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) throw Error("a number is out of range");
      if (std::isnan(result) && !std::isnan(a) && !std::isnan(b)) throw Error("complex numbers are not known");
      return Value(result);
    }
    default:
      break;
  }
  if (b == 0) throw Error("division by zero");
  if (op == Operator::divide) return Value(a / b);
  return Value(op == Operator::modulo ? floor_remainder(a, b) : floor_quotient(a, b));
}

Value repeat(Bounds& bounds, const Value& value, int64_t count) {
  count = std::max<int64_t>(count, 0);
  const size_t size = value.text() ? value.text()->size() : value.sequence()->items.size() * sizeof(Value);
  if (size > 0 && count > bounds.value_bytes / int64_t(size)) bounds.make(size_t(bounds.value_bytes) + 1);
  bounds.step(size ? count : 0);
  if (value.text()) {
    std::string text;
    text.reserve(size * size_t(count));
    for (int64_t i = 0; i < count && size; ++i) text += *value.text();
    return make_text(bounds, std::move(text));
  }
  Values items;
  for (int64_t i = 0; i < count && size; ++i) items.insert(items.end(), value.sequence()->items.begin(), value.sequence()->items.end());
  return make_sequence(bounds, std::move(items), value.sequence()->tuple);
}

Value join(Bounds& bounds, const Sequence& a, const Sequence& b) {
  Values items = a.items;
  items.insert(items.end(), b.items.begin(), b.items.end());
  return make_sequence(bounds, std::move(items), a.tuple);
}

// Slice bounds as Python's slice.indices() gives them for a sequence of `size`.
struct Range {
  int64_t start, stop, step;
};
Range range_of(const Value& from, const Value& to, const Value& by, int64_t size) {
  constexpr std::string_view what = "slice indices";
  const int64_t step = by.is_none() ? 1 : count_of(by, what);
  if (step == 0) throw Error("slice step cannot be zero");
  const int64_t low = step < 0 ? -1 : 0, high = step < 0 ? size - 1 : size;
  const auto clamp = [&](const Value& value, int64_t missing) {
    if (value.is_none()) return missing;
    const int64_t index = count_of(value, what);
    return std::clamp(index < 0 ? index + size : index, low, high);
  };
  return {clamp(from, step < 0 ? high : low), clamp(to, step < 0 ? low : high), step};
}

std::vector<size_t> character_starts(Bounds& bounds, const std::string& text) {  // and the end
  bounds.make(text.size() * sizeof(size_t));
  std::vector<size_t> starts;
  for (size_t at = 0; at < text.size(); at += character_size(text, at)) starts.push_back(at);
  starts.push_back(text.size());
  return starts;
}

Value no_attribute(const Value& of, const std::string& name) {
  return make_undefined(fmt::format("'{} object' has no attribute '{}'", type_name(of), name));
}

std::optional<Value> loop_attribute(Bounds& bounds, const Value& value, const std::string& name) {
  const Loop& loop = *value.loop();
  const int64_t index = int64_t(loop.index), length = int64_t(loop.items->items.size());
  if (name == "index0") return Value(Integer(index));
  if (name == "index") return Value(Integer(index + 1));
  if (name == "revindex0") return Value(Integer(length - index - 1));
  if (name == "revindex") return Value(Integer(length - index));
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index + 1 == length);
  if (name == "length") return Value(Integer(length));
  if (name == "depth") return Value(Integer(1));
  if (name == "depth0") return Value(Integer(0));
  if (name == "previtem") return index > 0 ? loop.items->items[size_t(index) - 1] : make_undefined("there is no previous item");
  if (name == "nextitem") return index + 1 < length ? loop.items->items[size_t(index) + 1] : make_undefined("there is no next item");
  if (name != "cycle") return std::nullopt;
  return make_function("cycle", [&bounds, index](const Arguments& arguments) {
    if (arguments.positional.empty()) throw Error("no items for cycling given");
    bounds.step();
    return arguments.positional[size_t(index) % arguments.positional.size()];
  });
}

}  // namespace

Value apply(Bounds& bounds, Operator op, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.get<double>() || b.get<double>()) return apply_reals(op, real_of(a), real_of(b));
    return apply_integers(op, integer_of(a, ""), integer_of(b, ""));
  }
  if (op == Operator::add && a.text() && b.text()) {
    bounds.step(int64_t((a.text()->size() + b.text()->size()) / 64));
    return make_text(bounds, *a.text() + *b.text());
  }
  if (op == Operator::add && a.sequence() && b.sequence() && a.sequence()->tuple == b.sequence()->tuple) {
    return join(bounds, *a.sequence(), *b.sequence());
  }
  const auto repeats = [](const Value& value) { return value.text() || value.sequence(); };
  const auto counts = [](const Value& value) { return value.get<Integer>() || value.get<bool>(); };
  if (op == Operator::multiply && repeats(a) && counts(b)) return repeat(bounds, a, count_of(b, ""));
  if (op == Operator::multiply && repeats(b) && counts(a)) return repeat(bounds, b, count_of(a, ""));
  if (op == Operator::modulo && a.text()) {
    const bool many = b.sequence() && b.sequence()->tuple;
    return make_text(bounds, format_text(bounds, *a.text(), many ? b.sequence()->items : Values{b}));
  }
  unsupported(op, a, b);
}

bool compare(Bounds& bounds, Operator op, const Value& a, const Value& b) {
  switch (op) {
    case Operator::equal:
      return equal(bounds, a, b);
    case Operator::not_equal:
      return !equal(bounds, a, b);
    case Operator::less:
      return less(bounds, a, b);
    case Operator::greater:
      return less(bounds, b, a);
    // Not the negation of the other order: nothing is before or after a NaN.
    case Operator::less_equal:
      return less(bounds, a, b) || equal(bounds, a, b);
    case Operator::greater_equal:
      return less(bounds, b, a) || equal(bounds, a, b);
    case Operator::in:
      return contains(bounds, b, a);
    default:
      return !contains(bounds, b, a);
  }
}

Value negate(const Value& value) {
  if (const double* v = value.get<double>()) return Value(-*v);
  if (const Undefined* v = value.get<Undefined>()) refuse(*v);
  if (!value.is_number()) throw Error("bad operand type for unary -: '{}'", type_name(value));
  return apply_integers(Operator::subtract, 0, integer_of(value, ""));
}

Value make_function(std::string name, std::function<Value(const Arguments&)> call, int depth) {
  if (depth > max_data_depth) throw Error("values are nested more than {} deep", max_data_depth);
  return Value(std::make_shared<const Callable>(Callable{std::move(name), std::move(call), depth}));
}

Value attribute_of(Bounds& bounds, const Value& of, const std::string& name) {
  if (const Undefined* undefined = of.get<Undefined>()) refuse(*undefined);
  if (const Namespace* space = of.space()) {
    bounds.step(int64_t(space->items.size() / 16));
    for (const auto& [key, value] : space->items) {
      if (key == name) return value;
    }
    return no_attribute(of, name);
  }
  if (of.loop()) return loop_attribute(bounds, of, name).value_or(no_attribute(of, name));
  if (of.callable() && name == "name") return make_text(bounds, of.callable()->name);
  if (std::optional<Value> method = method_of(bounds, of, name)) return *method;
  if (of.dict()) {
    if (const Value* value = of.dict()->find(name)) return *value;
  }
  return no_attribute(of, name);
}

Value item_of(Bounds& bounds, const Value& of, const Value& key) {
  if (const Undefined* undefined = of.get<Undefined>()) refuse(*undefined);
  const bool whole = key.get<Integer>() || key.get<bool>();
  if (const Dict* dict = of.dict()) {
    const bool can_be_key = !key.dict() && !(key.sequence() && !key.sequence()->tuple);
    if (const Value* value = can_be_key ? dict->find(bounds, key) : nullptr) return *value;
  } else if (whole && (of.text() || of.sequence())) {
    const int64_t size = int64_t(length_of(of)), given = count_of(key, ""), index = given < 0 ? given + size : given;
    if (index < 0 || index >= size) return make_undefined(fmt::format("'{} object' has no element {}", type_name(of), given));
    if (of.sequence()) return of.sequence()->items[size_t(index)];
    bounds.step(int64_t(of.text()->size() / 8));
    size_t at = 0;
    for (int64_t i = 0; i < index; ++i) at += character_size(*of.text(), at);
    return make_text(bounds, of.text()->substr(at, character_size(*of.text(), at)));
  }
  if (key.text()) return attribute_of(bounds, of, *key.text());
  return make_undefined(fmt::format("'{} object' has no element {}", type_name(of), represent(bounds, key)));
}

Value slice_of(Bounds& bounds, const Value& of, const Value& from, const Value& to, const Value& by) {
  if (const Undefined* undefined = of.get<Undefined>()) refuse(*undefined);
  if (!of.text() && !of.sequence()) throw Error("'{}' object cannot be sliced", type_name(of));
  const std::vector<size_t> starts = of.text() ? character_starts(bounds, *of.text()) : std::vector<size_t>();
  const auto [start, stop, step] = range_of(from, to, by, of.text() ? int64_t(starts.size()) - 1 : int64_t(length_of(of)));
  std::string text;
  Values items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) {
    bounds.step(of.text() ? i % 16 == 0 : 1);
    if (of.text()) {
      text += of.text()->substr(starts[size_t(i)], starts[size_t(i) + 1] - starts[size_t(i)]);
    } else {
      items.push_back(of.sequence()->items[size_t(i)]);
    }
  }
  return of.text() ? make_text(bounds, std::move(text)) : make_sequence(bounds, std::move(items), of.sequence()->tuple);
}

}  // namespace hadal::jinja
