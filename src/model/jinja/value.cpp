// Making, comparing and walking values. Everything that can grow is paid for before it is allocated.
#include "model/jinja/value.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "model/jinja/text.h"

namespace hadal::jinja {
namespace {

int depth_of(const Values& items) {
  int deepest = 0;
  for (const Value& item : items) deepest = std::max(deepest, item.depth());
  if (deepest >= max_data_depth) throw Error("values are nested more than {} deep", max_data_depth);
  return deepest + 1;
}

bool equal_items(Bounds& bounds, const Values& a, const Values& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!equal(bounds, a[i], b[i])) return false;
  }
  return true;
}

bool equal_dicts(Bounds& bounds, const Dict& a, const Dict& b) {
  if (a.items.size() != b.items.size()) return false;
  for (const auto& [key, value] : a.items) {
    const Value* other = b.find(bounds, key);
    if (!other || !equal(bounds, value, *other)) return false;
  }
  return true;
}

bool same_key(Bounds& bounds, const Value& a, const Value& b) {
  if (!a.text() || !b.text()) return equal(bounds, a, b);
  if (a.text()->size() != b.text()->size()) return false;
  bounds.step(int64_t(a.text()->size() / 64));
  return *a.text() == *b.text();
}

void check_key(const Value& key) {
  const auto flat = [](const Value& value) { return !value.sequence() && !value.dict(); };
  const Sequence* s = key.sequence();
  const bool fits = s ? s->tuple && std::all_of(s->items.begin(), s->items.end(), flat) : flat(key);
  if (!fits) throw Error("unhashable type: '{}'", type_name(key));
}

}  // namespace

void Bounds::step(int64_t count) {
  steps -= count;
  if (steps < 0) throw Error("the template takes too many steps");
}

void Bounds::make(size_t size) {
  if (size > size_t(value_bytes)) throw Error("the template makes a value of {} bytes, over the limit of {}", size, value_bytes);
  bytes -= int64_t(size);
  if (bytes < 0) throw Error("the template makes too many values");
  step(int64_t(size / 64));
}

int Value::depth() const {
  if (const Sequence* s = sequence()) return s->depth;
  if (const Dict* d = dict()) return d->depth;
  if (const Callable* c = callable()) return c->depth;
  if (const Loop* l = loop()) return l->items->depth + 1;
  return 0;
}

const Value* Dict::find(Bounds& bounds, const Value& key) const {
  check_key(key);
  bounds.step(int64_t(items.size() / 8));
  for (const auto& [k, v] : items) {
    if (same_key(bounds, k, key)) return &v;
  }
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [k, v] : items) {
    if (k.text() && *k.text() == key) return &v;
  }
  return nullptr;
}

const Value* Arguments::find(size_t position, std::string_view name) const {
  if (position < positional.size()) return &positional[position];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Arguments::check(std::string_view who, size_t most, std::initializer_list<std::string_view> names) const {
  if (positional.size() > most) throw Error("{} takes at most {} arguments, found {}", who, most, positional.size());
  for (const auto& [key, value] : named) {
    if (std::find(names.begin(), names.end(), key) == names.end()) throw Error("{} has no argument '{}'", who, key);
  }
}

Value make_text(Bounds& bounds, std::string text) {
  bounds.make(text.size());
  return Value(std::make_shared<const std::string>(std::move(text)));
}

Value make_sequence(Bounds& bounds, Values items, bool tuple) {
  bounds.make(items.size() * sizeof(Value));
  const int depth = depth_of(items);
  return Value(std::make_shared<const Sequence>(Sequence{tuple, std::move(items), depth}));
}

Value make_dict(Bounds& bounds, Pairs items) {
  bounds.make(items.size() * 2 * sizeof(Value));
  int deepest = 0;
  for (const auto& [key, value] : items) deepest = std::max({deepest, key.depth(), value.depth()});
  if (deepest >= max_data_depth) throw Error("values are nested more than {} deep", max_data_depth);
  return Value(std::make_shared<const Dict>(Dict{std::move(items), deepest + 1}));
}

void put(Bounds& bounds, Pairs& items, Value key, Value value) {
  check_key(key);
  bounds.step(int64_t(items.size() / 8 + 1));
  for (auto& [k, v] : items) {
    if (!same_key(bounds, k, key)) continue;
    v = std::move(value);
    return;
  }
  items.emplace_back(std::move(key), std::move(value));
}

Value make_undefined(std::string reason) { return Value(Undefined{std::make_shared<const std::string>(std::move(reason))}); }

void refuse(const Undefined& undefined) { throw Error("{}", undefined.reason ? *undefined.reason : "an undefined value is used"); }

std::string_view type_name(const Value& value) {
  if (value.sequence()) return value.sequence()->tuple ? "tuple" : "list";
  constexpr std::string_view names[] = {"Undefined", "NoneType", "bool",     "int",         "float",    "str",
                                        "list",      "dict",     "function", "LoopContext", "Namespace"};
  return names[value.data.index()];
}

bool is_true(const Value& value) {
  if (const bool* v = value.get<bool>()) return *v;
  if (const Integer* v = value.get<Integer>()) return *v != 0;
  if (const double* v = value.get<double>()) return *v != 0;
  if (const std::string* v = value.text()) return !v->empty();
  if (const Sequence* v = value.sequence()) return !v->items.empty();
  if (const Dict* v = value.dict()) return !v->items.empty();
  return !value.is_undefined() && !value.is_none();
}

double real_of(const Value& value) {
  if (const bool* v = value.get<bool>()) return *v;
  if (const Integer* v = value.get<Integer>()) return double(*v);
  if (const double* v = value.get<double>()) return *v;
  throw Error("a number is expected, found '{}'", type_name(value));
}

Integer integer_of(const Value& value, std::string_view what) {
  if (const Undefined* v = value.get<Undefined>()) refuse(*v);
  if (const bool* v = value.get<bool>()) return *v;
  if (const Integer* v = value.get<Integer>()) return *v;
  throw Error("{} must be an integer, found '{}'", what, type_name(value));
}

int64_t count_of(const Value& value, std::string_view what) {
  constexpr Integer limit = Integer(1) << 62;
  return int64_t(std::clamp(integer_of(value, what), -limit, limit));
}

bool equal(Bounds& bounds, const Value& a, const Value& b) {
  bounds.step();
  if (a.is_number() && b.is_number()) {
    if (a.get<double>() || b.get<double>()) return real_of(a) == real_of(b);
    return integer_of(a, "") == integer_of(b, "");
  }
  if (a.data.index() != b.data.index()) return false;
  if (a.is_undefined() || a.is_none()) return true;
  if (a.text()) {
    bounds.step(int64_t(a.text()->size() / 64));
    return *a.text() == *b.text();
  }
  if (a.sequence()) return a.sequence()->tuple == b.sequence()->tuple && equal_items(bounds, a.sequence()->items, b.sequence()->items);
  if (a.dict()) return equal_dicts(bounds, *a.dict(), *b.dict());
  if (a.space()) return a.space() == b.space();
  return a.callable() ? a.callable() == b.callable() : a.loop() == b.loop();
}

bool less(Bounds& bounds, const Value& a, const Value& b) {
  bounds.step();
  if (a.is_number() && b.is_number()) {
    if (a.get<double>() || b.get<double>()) return real_of(a) < real_of(b);
    return integer_of(a, "") < integer_of(b, "");
  }
  if (const Undefined* v = a.get<Undefined>()) refuse(*v);
  if (const Undefined* v = b.get<Undefined>()) refuse(*v);
  if (a.text() && b.text()) {
    bounds.step(int64_t(a.text()->size() / 64));
    return *a.text() < *b.text();  // bytes of UTF-8 sort as their characters do
  }
  const Sequence *x = a.sequence(), *y = b.sequence();
  if (!x || !y || x->tuple != y->tuple) throw Error("'<' not supported between instances of '{}' and '{}'", type_name(a), type_name(b));
  for (size_t i = 0; i < std::min(x->items.size(), y->items.size()); ++i) {
    if (!equal(bounds, x->items[i], y->items[i])) return less(bounds, x->items[i], y->items[i]);
  }
  return x->items.size() < y->items.size();
}

bool contains(Bounds& bounds, const Value& container, const Value& item) {
  if (const std::string* text = container.text()) {
    if (!item.text()) throw Error("'in <string>' requires string as left operand, not {}", type_name(item));
    return find_text(bounds, *text, *item.text()) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) {
    return dict->find(bounds, item);
  }
  for (const Value& v : items_of(bounds, container)) {
    if (equal(bounds, v, item)) return true;
  }
  return false;
}

Values items_of(Bounds& bounds, const Value& value) {
  if (value.is_undefined()) return {};
  if (const Sequence* s = value.sequence()) {
    bounds.make(s->items.size() * sizeof(Value));
    return s->items;
  }
  Values out;
  if (const Dict* d = value.dict()) {
    bounds.make(d->items.size() * sizeof(Value));
    for (const auto& [key, v] : d->items) out.push_back(key);
    return out;
  }
  if (const std::string* text = value.text()) {
    bounds.make(text->size() * (sizeof(Value) + sizeof(std::string)));
    for (size_t at = 0; at < text->size();) {
      const size_t size = character_size(*text, at);
      out.push_back(Value(std::make_shared<const std::string>(text->substr(at, size))));
      at += size;
    }
    return out;
  }
  throw Error("'{}' object is not iterable", type_name(value));
}

Integer length_of(const Value& value) {
  if (value.is_undefined()) return 0;
  if (const std::string* v = value.text()) return Integer(character_count(*v));
  if (const Sequence* v = value.sequence()) return Integer(v->items.size());
  if (const Dict* v = value.dict()) return Integer(v->items.size());
  if (const Loop* v = value.loop()) return Integer(v->items->items.size());
  throw Error("object of type '{}' has no len()", type_name(value));
}

std::string to_string(Integer value) { return fmt::format("{}", value); }

}  // namespace hadal::jinja
