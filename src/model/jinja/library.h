// What templates can call: operators, attributes, methods, filters and tests, with Python's and Jinja's meaning.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "model/jinja/syntax.h"
#include "model/jinja/value.h"

namespace hadal::jinja {

Value apply(Bounds& bounds, Operator op, const Value& a, const Value& b);  // arithmetic
bool compare(Bounds& bounds, Operator op, const Value& a, const Value& b);
Value negate(const Value& value);

Value attribute_of(Bounds& bounds, const Value& of, const std::string& name);                          // of.name: a method, then a key
Value item_of(Bounds& bounds, const Value& of, const Value& key);                                      // of[key]: an item, then a method
Value slice_of(Bounds& bounds, const Value& of, const Value& from, const Value& to, const Value& by);  // none: not given
std::optional<Value> method_of(Bounds& bounds, const Value& of, const std::string& name);  // bound to `of`; an unsafe one is undefined

using Method = Value (*)(Bounds& bounds, const Value& self, const Arguments& arguments);
Method find_method(const Value& of, std::string_view name);  // nullptr when its type has none of that name

using Filter = Value (*)(Bounds& bounds, const Value& of, const Arguments& arguments);
Filter find_filter(std::string_view name);  // nullptr when there is none, as the two parts it looks into
Filter find_text_filter(std::string_view name);
Filter find_sequence_filter(std::string_view name);

using Test = bool (*)(Bounds& bounds, const Value& of, const Arguments& arguments);
Test find_test(std::string_view name);

Value make_function(std::string name, std::function<Value(const Arguments&)> call, int depth = 1);
std::string format_text(Bounds& bounds, const std::string& format, const Values& values);  // format % values

}  // namespace hadal::jinja
