// Filters of lists. What Jinja gives as a generator is a list here.
#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "model/jinja/library.h"
#include "model/jinja/text.h"

namespace hadal::jinja {
namespace {

// "a.b.0": a path into a value, as every filter with an attribute takes it.
Value walk(Bounds& bounds, Value value, const Value& path) {
  if (!path.text()) return item_of(bounds, value, path);
  std::string_view rest = *path.text();
  for (;;) {
    const size_t dot = rest.find('.');
    const std::string part(rest.substr(0, dot));
    const bool number =
        !part.empty() && part.size() < 10 && std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    value = item_of(bounds, value, number ? Value(Integer(std::stol(part))) : make_text(bounds, part));
    if (dot == std::string_view::npos) return value;
    rest.remove_prefix(dot + 1);
  }
}

struct Key {  // what values are ordered and compared by
  const Value* attribute;
  bool case_sensitive;
  Value of(Bounds& bounds, const Value& item) const {
    Value key = attribute && !attribute->is_none() ? walk(bounds, item, *attribute) : item;
    if (case_sensitive || !key.text()) return key;
    bounds.step(int64_t(key.text()->size() / 8));
    return make_text(bounds, lower(*key.text()));
  }
};

bool flag(const Arguments& a, size_t position, std::string_view name) {
  const Value* value = a.find(position, name);
  return value && is_true(*value);
}

Value length_filter(Bounds&, const Value& of, const Arguments& a) {
  a.check("length", 0);
  return Value(length_of(of));
}

Value list_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("list", 0);
  return make_sequence(bounds, items_of(bounds, of));
}

Value first_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("first", 0);
  const Values items = items_of(bounds, of);
  return items.empty() ? make_undefined("No first item, sequence was empty.") : items.front();
}

Value last_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("last", 0);
  const Values items = items_of(bounds, of);
  return items.empty() ? make_undefined("No last item, sequence was empty.") : items.back();
}

Value reverse_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("reverse", 0);
  if (of.text()) return slice_of(bounds, of, Value(None{}), Value(None{}), Value(Integer(-1)));
  Values items = items_of(bounds, of);
  std::reverse(items.begin(), items.end());
  return make_sequence(bounds, std::move(items));
}

Value join_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("join", 2, {"d", "attribute"});
  const Value *separator = a.find(0, "d"), *attribute = a.find(1, "attribute");
  const std::string between = separator ? write(bounds, *separator) : "";
  std::string out;
  bool first = true;
  for (const Value& item : items_of(bounds, of)) {
    const std::string text = write(bounds, attribute && !attribute->is_none() ? walk(bounds, item, *attribute) : item);
    bounds.make(text.size() + between.size());
    if (!std::exchange(first, false)) out += between;
    out += text;
  }
  return make_text(bounds, std::move(out));
}

Value items_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("items", 0);
  if (of.is_undefined()) return make_sequence(bounds, {});
  if (!of.dict()) throw Error("Can only get item pairs from a mapping, not '{}'", type_name(of));
  return find_method(of, "items")(bounds, of, {});
}

Value dictsort_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("dictsort", 3, {"case_sensitive", "by", "reverse"});
  if (!of.dict()) throw Error("dictsort: a dict is expected, found '{}'", type_name(of));
  const Value* by = a.find(1, "by");
  const std::string which = by ? write(bounds, *by) : "key";
  if (which != "key" && which != "value") throw Error("dictsort: by is \"key\" or \"value\", found \"{}\"", which);
  const Key key{nullptr, flag(a, 0, "case_sensitive")};
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [k, v] : of.dict()->items)
    keyed.emplace_back(key.of(bounds, which == "key" ? k : v), make_sequence(bounds, {k, v}, true));
  const bool reverse = flag(a, 2, "reverse");
  std::stable_sort(keyed.begin(), keyed.end(),
                   [&](const auto& x, const auto& y) { return reverse ? less(bounds, y.first, x.first) : less(bounds, x.first, y.first); });
  Values items;
  for (auto& [k, pair] : keyed) items.push_back(std::move(pair));
  return make_sequence(bounds, std::move(items));
}

Value sort_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("sort", 3, {"reverse", "case_sensitive", "attribute"});
  const bool reverse = flag(a, 0, "reverse"), case_sensitive = flag(a, 1, "case_sensitive");
  const Value* attribute = a.find(2, "attribute");
  std::vector<Value> paths;  // "a,b": by a, then by b
  if (attribute && attribute->text()) {
    for (std::string_view rest = *attribute->text();;) {
      const size_t comma = rest.find(',');
      paths.push_back(make_text(bounds, std::string(rest.substr(0, comma))));
      if (comma == std::string_view::npos) break;
      rest.remove_prefix(comma + 1);
    }
  } else {
    paths.push_back(attribute ? *attribute : Value(None{}));
  }
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : items_of(bounds, of)) {
    Values keys;
    for (const Value& path : paths) keys.push_back(Key{&path, case_sensitive}.of(bounds, item));
    keyed.emplace_back(make_sequence(bounds, std::move(keys)), item);
  }
  std::stable_sort(keyed.begin(), keyed.end(),
                   [&](const auto& x, const auto& y) { return reverse ? less(bounds, y.first, x.first) : less(bounds, x.first, y.first); });
  Values items;
  for (auto& [k, item] : keyed) items.push_back(std::move(item));
  return make_sequence(bounds, std::move(items));
}

Value unique_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("unique", 2, {"case_sensitive", "attribute"});
  const Key key{a.find(1, "attribute"), flag(a, 0, "case_sensitive")};
  Values seen, items;
  for (const Value& item : items_of(bounds, of)) {
    Value k = key.of(bounds, item);
    if (k.dict() || (k.sequence() && !k.sequence()->tuple)) throw Error("unhashable type: '{}'", type_name(k));
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& other) { return equal(bounds, other, k); })) continue;
    seen.push_back(std::move(k));
    items.push_back(item);
  }
  return make_sequence(bounds, std::move(items));
}

template <bool most>
Value extreme_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check(most ? "max" : "min", 2, {"case_sensitive", "attribute"});
  const Key key{a.find(1, "attribute"), flag(a, 0, "case_sensitive")};
  const Values items = items_of(bounds, of);
  if (items.empty()) return make_undefined("No aggregated item, sequence was empty.");
  size_t best = 0;
  Value best_key = key.of(bounds, items[0]);
  for (size_t i = 1; i < items.size(); ++i) {
    Value k = key.of(bounds, items[i]);
    if (!(most ? less(bounds, best_key, k) : less(bounds, k, best_key))) continue;
    best = i;
    best_key = std::move(k);
  }
  return items[best];
}

Value sum_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  a.check("sum", 2, {"attribute", "start"});
  const Value *attribute = a.find(0, "attribute"), *start = a.find(1, "start");
  Value sum = start ? *start : Value(Integer(0));
  if (sum.text()) throw Error("sum() can't sum strings");
  for (const Value& item : items_of(bounds, of)) {
    sum = apply(bounds, Operator::add, sum, attribute && !attribute->is_none() ? walk(bounds, item, *attribute) : item);
  }
  return sum;
}

Value map_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  const Values source = items_of(bounds, of);
  Values items;
  if (a.positional.empty()) {
    a.check("map", 0, {"attribute", "default"});
    const Value *attribute = a.find(0, "attribute"), *missing = a.find(1, "default");
    if (!attribute) throw Error("map takes a filter or an attribute");
    for (const Value& item : source) {
      Value value = walk(bounds, item, *attribute);
      if (value.is_undefined() && missing) value = *missing;
      items.push_back(std::move(value));
    }
    return make_sequence(bounds, std::move(items));
  }
  const std::string name = write(bounds, a.positional[0]);
  const Filter filter = find_filter(name);
  if (!filter) throw Error("filter '{}' is not known", name);
  const Arguments rest{Values(a.positional.begin() + 1, a.positional.end()), a.named};
  for (const Value& item : source) {
    bounds.step();
    items.push_back(filter(bounds, item, rest));
  }
  return make_sequence(bounds, std::move(items));
}

template <bool keep, bool by_attribute>
Value select_filter(Bounds& bounds, const Value& of, const Arguments& a) {
  const size_t own = by_attribute ? 1 : 0;
  if (a.positional.size() < own) throw Error("an attribute is expected as the first argument");
  Test test = nullptr;
  Arguments rest;
  if (a.positional.size() > own) {
    const std::string name = write(bounds, a.positional[own]);
    test = find_test(name);
    if (!test) throw Error("test '{}' is not known", name);
    rest = {Values(a.positional.begin() + long(own) + 1, a.positional.end()), a.named};
  }
  Values items;
  for (const Value& item : items_of(bounds, of)) {
    bounds.step();
    const Value value = by_attribute ? walk(bounds, item, a.positional[0]) : item;
    if ((test ? test(bounds, value, rest) : is_true(value)) == keep) items.push_back(item);
  }
  return make_sequence(bounds, std::move(items));
}

struct Entry {
  std::string_view name;
  Filter filter;
};
constexpr Entry filters[] = {
    {"count", length_filter},
    {"dictsort", dictsort_filter},
    {"first", first_filter},
    {"items", items_filter},
    {"join", join_filter},
    {"last", last_filter},
    {"length", length_filter},
    {"list", list_filter},
    {"map", map_filter},
    {"max", extreme_filter<true>},
    {"min", extreme_filter<false>},
    {"reject", select_filter<false, false>},
    {"rejectattr", select_filter<false, true>},
    {"reverse", reverse_filter},
    {"select", select_filter<true, false>},
    {"selectattr", select_filter<true, true>},
    {"sort", sort_filter},
    {"sum", sum_filter},
    {"unique", unique_filter},
};

}  // namespace

Filter find_sequence_filter(std::string_view name) {
  const auto entry = std::find_if(std::begin(filters), std::end(filters), [&](const Entry& e) { return e.name == name; });
  return entry == std::end(filters) ? nullptr : entry->filter;
}

}  // namespace hadal::jinja
