// Tests: what follows "is".
#include <algorithm>

#include "core/error.h"
#include "model/jinja/library.h"
#include "model/jinja/text.h"

namespace hadal::jinja {
namespace {

bool is_whole(const Value& value) { return value.get<Integer>(); }

const Value& only(const Arguments& a) {
  if (a.positional.size() != 1 || !a.named.empty()) throw Error("the test takes one argument");
  return a.positional[0];
}

template <Operator op>
bool compares(Bounds& bounds, const Value& of, const Arguments& a) {
  return compare(bounds, op, of, only(a));
}

bool odd(Bounds& bounds, const Value& of, const Arguments&) {
  return equal(bounds, apply(bounds, Operator::modulo, of, Value(Integer(2))), Value(Integer(1)));
}
bool even(Bounds& bounds, const Value& of, const Arguments&) {
  return equal(bounds, apply(bounds, Operator::modulo, of, Value(Integer(2))), Value(Integer(0)));
}
bool divisible(Bounds& bounds, const Value& of, const Arguments& a) {
  return equal(bounds, apply(bounds, Operator::modulo, of, only(a)), Value(Integer(0)));
}
bool is_cased(Bounds& bounds, const Value& of, std::string_view method) {
  const Value text = make_text(bounds, write(bounds, of));
  return is_true(find_method(text, method)(bounds, text, Arguments()));
}
bool is_lower(Bounds& bounds, const Value& of, const Arguments&) { return is_cased(bounds, of, "islower"); }
bool is_upper(Bounds& bounds, const Value& of, const Arguments&) { return is_cased(bounds, of, "isupper"); }
bool same(Bounds& bounds, const Value& of, const Arguments& a) {
  const Value& other = only(a);
  return of.data.index() == other.data.index() && equal(bounds, of, other);
}

struct Entry {
  std::string_view name;
  Test test;
};
using A = const Arguments&;
constexpr Entry tests[] = {
    {"defined", [](Bounds&, const Value& v, A) { return !v.is_undefined(); }},
    {"undefined", [](Bounds&, const Value& v, A) { return v.is_undefined(); }},
    {"none", [](Bounds&, const Value& v, A) { return v.is_none(); }},
    {"boolean", [](Bounds&, const Value& v, A) { return v.get<bool>() != nullptr; }},
    {"true", [](Bounds&, const Value& v, A) { return v.get<bool>() && *v.get<bool>(); }},
    {"false", [](Bounds&, const Value& v, A) { return v.get<bool>() && !*v.get<bool>(); }},
    {"string", [](Bounds&, const Value& v, A) { return v.text() != nullptr; }},
    {"mapping", [](Bounds&, const Value& v, A) { return v.dict() != nullptr; }},
    {"number", [](Bounds&, const Value& v, A) { return v.is_number(); }},
    {"integer", [](Bounds&, const Value& v, A) { return is_whole(v); }},
    {"float", [](Bounds&, const Value& v, A) { return v.get<double>() != nullptr; }},
    {"sequence", [](Bounds&, const Value& v, A) { return v.text() || v.sequence() || v.dict() || v.is_undefined(); }},
    {"iterable", [](Bounds&, const Value& v, A) { return v.text() || v.sequence() || v.dict() || v.loop() || v.is_undefined(); }},
    {"callable", [](Bounds&, const Value& v, A) { return v.callable() != nullptr; }},
    {"escaped", [](Bounds&, const Value&, A) { return false; }},
    {"odd", odd},
    {"even", even},
    {"divisibleby", divisible},
    {"lower", is_lower},
    {"upper", is_upper},
    {"sameas", same},
    {"filter", [](Bounds&, const Value& v, A) { return v.text() && find_filter(*v.text()); }},
    {"test", [](Bounds&, const Value& v, A) { return v.text() && find_test(*v.text()); }},
    {"in", compares<Operator::in>},
    {"eq", compares<Operator::equal>},
    {"equalto", compares<Operator::equal>},
    {"==", compares<Operator::equal>},
    {"ne", compares<Operator::not_equal>},
    {"!=", compares<Operator::not_equal>},
    {"lt", compares<Operator::less>},
    {"lessthan", compares<Operator::less>},
    {"<", compares<Operator::less>},
    {"le", compares<Operator::less_equal>},
    {"<=", compares<Operator::less_equal>},
    {"gt", compares<Operator::greater>},
    {"greaterthan", compares<Operator::greater>},
    {">", compares<Operator::greater>},
    {"ge", compares<Operator::greater_equal>},
    {">=", compares<Operator::greater_equal>},
};

}  // namespace

Test find_test(std::string_view name) {
  const auto entry = std::find_if(std::begin(tests), std::end(tests), [&](const Entry& e) { return e.name == name; });
  return entry == std::end(tests) ? nullptr : entry->test;
}

}  // namespace hadal::jinja
