// Expressions.
#include <algorithm>

#include "core/error.h"
#include "model/jinja/interpreter.h"
#include "model/jinja/library.h"
#include "model/jinja/text.h"

namespace hadal::jinja {

Value Interpreter::look_up(const std::string& name) {
  if (const Value* value = scope_->find(bounds_, name)) return *value;
  return make_undefined(fmt::format("'{}' is undefined", name));
}

namespace {
constexpr int max_depth = 1500;

struct Level {  // one deeper while it lives
  explicit Level(int& d) : depth(d) {
    if (++depth > max_depth) throw Error("expressions are nested more than {} deep", max_depth);
  }
  ~Level() { --depth; }
  int& depth;
};
}  // namespace

Value Interpreter::evaluate(const Expression& e) {
  const Level level(depth_);
  bounds_.step();
  line_ = e.line;
  switch (e.kind) {
    case Expression::Kind::literal:
      return e.value;
    case Expression::Kind::name:
      return look_up(e.text);
    case Expression::Kind::list:
      return make_sequence(bounds_, evaluate_all(e.parts));
    case Expression::Kind::tuple:
      return make_sequence(bounds_, evaluate_all(e.parts), true);
    case Expression::Kind::dict:
      return evaluate_dict(e);
    case Expression::Kind::negate:
      return negate(evaluate(*e.parts[0]));
    case Expression::Kind::plus:
      return apply(bounds_, Operator::add, Value(Integer(0)), evaluate(*e.parts[0]));
    case Expression::Kind::logical_not:
      return Value(!is_true(evaluate(*e.parts[0])));
    case Expression::Kind::logical_and:
    case Expression::Kind::logical_or: {
      Value left = evaluate(*e.parts[0]);
      return is_true(left) == (e.kind == Expression::Kind::logical_or) ? left : evaluate(*e.parts[1]);
    }
    case Expression::Kind::binary: {
      const Value left = evaluate(*e.parts[0]), right = evaluate(*e.parts[1]);
      line_ = e.line;
      return apply(bounds_, e.operators[0], left, right);
    }
    case Expression::Kind::compare:
      return Value(evaluate_compare(e));
    case Expression::Kind::concat:
      return evaluate_concat(e);
    case Expression::Kind::conditional: {
      if (is_true(evaluate(*e.parts[0]))) return evaluate(*e.parts[1]);
      if (e.parts[2]) return evaluate(*e.parts[2]);
      return make_undefined("the inline if-expression has no else and its condition is false");
    }
    case Expression::Kind::attribute:
      return attribute_of(bounds_, evaluate(*e.parts[0]), e.text);
    case Expression::Kind::subscript: {
      const Value of = evaluate(*e.parts[0]), key = evaluate(*e.parts[1]);
      return item_of(bounds_, of, key);
    }
    case Expression::Kind::slice:
      return evaluate_slice(e);
    case Expression::Kind::call:
      return evaluate_call(e);
    case Expression::Kind::filter:
      return evaluate_filter(e);
    case Expression::Kind::test:
      return Value(evaluate_test(e));
  }
  return {};
}

Values Interpreter::evaluate_all(const std::vector<ExpressionPtr>& parts) {
  Values values;
  values.reserve(parts.size());
  for (const auto& part : parts) values.push_back(evaluate(*part));
  return values;
}

Value Interpreter::evaluate_dict(const Expression& e) {
  Pairs items;
  for (size_t i = 0; i < e.parts.size(); i += 2) {
    Value key = evaluate(*e.parts[i]);
    put(bounds_, items, std::move(key), evaluate(*e.parts[i + 1]));
  }
  return make_dict(bounds_, std::move(items));
}

Value Interpreter::evaluate_concat(const Expression& e) {
  std::string text;
  for (const auto& part : e.parts) {
    text += write(bounds_, evaluate(*part));
    if (text.size() > size_t(bounds_.value_bytes)) break;  // make_text refuses it
  }
  return make_text(bounds_, std::move(text));
}

Value Interpreter::evaluate_slice(const Expression& e) {
  const Value of = evaluate(*e.parts[0]);
  Values bounds;
  for (size_t i = 1; i < 4; ++i) bounds.push_back(e.parts[i] ? evaluate(*e.parts[i]) : Value(None{}));
  return slice_of(bounds_, of, bounds[0], bounds[1], bounds[2]);
}

bool Interpreter::evaluate_compare(const Expression& e) {
  Value left = evaluate(*e.parts[0]);
  for (size_t i = 0; i < e.operators.size(); ++i) {
    Value right = evaluate(*e.parts[i + 1]);
    line_ = e.line;
    if (!compare(bounds_, e.operators[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Arguments Interpreter::evaluate(const std::vector<Argument>& arguments) {
  Arguments out;
  for (const Argument& argument : arguments) {
    Value value = evaluate(*argument.value);
    if (argument.kind == Argument::Kind::positional) {
      out.positional.push_back(std::move(value));
    } else if (argument.kind == Argument::Kind::named) {
      out.named.emplace_back(argument.name, std::move(value));
    } else if (argument.kind == Argument::Kind::spread) {
      for (Value& item : items_of(bounds_, value)) out.positional.push_back(std::move(item));
    } else {
      if (!value.dict()) throw Error("argument after ** must be a mapping, not {}", type_name(value));
      bounds_.make(value.dict()->items.size() * sizeof(Value));
      for (const auto& [key, item] : value.dict()->items) {
        if (!key.text()) throw Error("keywords must be strings");
        out.named.emplace_back(*key.text(), item);
      }
    }
  }
  return out;
}

Value Interpreter::evaluate_call(const Expression& e, const Value* caller) {
  const Value callee = evaluate(*e.parts[0]);
  if (const Undefined* undefined = callee.get<Undefined>()) refuse(*undefined);
  if (!callee.callable()) throw Error("'{}' object is not callable", type_name(callee));
  Arguments arguments = evaluate(e.arguments);
  if (caller) arguments.named.emplace_back("caller", *caller);
  line_ = e.line;
  return callee.callable()->call(arguments);
}

Value Interpreter::evaluate_filter(const Expression& e, const Value* body) {
  // A chain in a filter block begins at the body, where an expression has its first part.
  const Value of = !e.parts[0] ? *body : body ? evaluate_filter(*e.parts[0], body) : evaluate(*e.parts[0]);
  const Arguments arguments = evaluate(e.arguments);
  line_ = e.line;
  return find_filter(e.text)(bounds_, of, arguments);
}

bool Interpreter::evaluate_test(const Expression& e) {
  const Value of = evaluate(*e.parts[0]);
  const Arguments arguments = evaluate(e.arguments);
  line_ = e.line;
  return find_test(e.text)(bounds_, of, arguments);
}

}  // namespace hadal::jinja
