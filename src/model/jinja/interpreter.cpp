// Statements, macros and the functions that every template can call.
#include "model/jinja/interpreter.h"

#include <ctime>

#include "core/error.h"
#include "model/jinja/library.h"
#include "model/jinja/text.h"

namespace hadal::jinja {
namespace {

constexpr int max_call_depth = 100;     // of macros in macros
constexpr int64_t max_range = 100'000;  // as Jinja's sandbox

Value range(Bounds& bounds, const Arguments& arguments) {
  arguments.check("range", 3);
  const auto at = [&](size_t i) { return count_of(arguments.positional[i], "an argument of range"); };
  if (arguments.positional.empty()) throw Error("range expected at least 1 argument, got 0");
  const bool one = arguments.positional.size() == 1;
  const int64_t start = one ? 0 : at(0), stop = at(one ? 0 : 1), step = arguments.positional.size() == 3 ? at(2) : 1;
  if (step == 0) throw Error("range() arg 3 must not be zero");
  const Integer span = step > 0 ? Integer(stop) - start : Integer(start) - stop, stride = step > 0 ? Integer(step) : -Integer(step);
  const Integer count = span <= 0 ? 0 : (span + stride - 1) / stride;
  if (count > max_range) throw Error("range too big: more than {} items", max_range);
  Values items;
  for (Integer i = 0; i < count; ++i) items.push_back(Value(Integer(start + i * step)));
  return make_sequence(bounds, std::move(items));
}

Pairs pairs_of(Bounds& bounds, const Arguments& arguments, std::string_view who) {
  arguments.check(who, 1, {});
  Pairs items;
  if (arguments.positional.empty()) return items;
  const Value& from = arguments.positional[0];
  if (from.dict()) return from.dict()->items;
  for (const Value& pair : items_of(bounds, from)) {
    const Values both = items_of(bounds, pair);
    if (both.size() != 2) throw Error("{}: pairs are expected, found {} values", who, both.size());
    put(bounds, items, both[0], both[1]);
  }
  return items;
}

Pairs dict_items(Bounds& bounds, const Arguments& arguments, std::string_view who) {
  Pairs items = pairs_of(bounds, {arguments.positional, {}}, who);
  for (const auto& [name, value] : arguments.named) put(bounds, items, make_text(bounds, name), value);
  return items;
}

Value strftime_now(Bounds& bounds, const Arguments& arguments) {
  arguments.check("strftime_now", 1, {"format"});
  const Value* format = arguments.find(0, "format");
  if (!format || !format->text()) throw Error("strftime_now takes a format");
  if (format->text()->size() > 256) throw Error("the format of strftime_now is too long");
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char buffer[4096];
  const size_t size = std::strftime(buffer, sizeof buffer, format->text()->c_str(), &local);
  return make_text(bounds, std::string(buffer, size));
}

}  // namespace

Value* Scope::find(Bounds& bounds, std::string_view name) {
  for (Scope* scope = this; scope; scope = scope->parent) {
    bounds.step(int64_t(scope->names.size() / 16));
    for (auto& [key, value] : scope->names) {
      if (key == name) return &value;
    }
  }
  return nullptr;
}

void Scope::set(Bounds& bounds, std::string_view name, Value value) {
  bounds.step(int64_t(names.size() / 16));
  for (auto& [key, old] : names) {
    if (key != name) continue;
    old = std::move(value);
    return;
  }
  names.emplace_back(name, std::move(value));
}

struct Interpreter::Frame {
  explicit Frame(Interpreter& i, Scope* parent) : interpreter(i), outer(i.scope_), scope(new Scope{parent, {}}) {
    interpreter.bounds_.make(sizeof(Scope));
    interpreter.scope_ = scope.get();
  }
  explicit Frame(Interpreter& i) : Frame(i, i.scope_) {}
  ~Frame() {
    interpreter.scope_ = outer;
    if (scope->kept) interpreter.kept_.push_back(std::move(scope));
  }
  Interpreter& interpreter;
  Scope* outer;
  std::unique_ptr<Scope> scope;
};

Interpreter::Interpreter(Bounds& bounds, std::vector<std::pair<std::string, Value>> variables) : bounds_(bounds) {
  define_globals();
  for (auto& [name, value] : variables) top_.set(bounds_, name, std::move(value));
}

Interpreter::~Interpreter() {  // values refer to namespaces and scopes by address: let go of all of them first
  for (Namespace& space : spaces_) space.items.clear();
  for (auto& scope : kept_) scope->names.clear();
}

void Interpreter::define_globals() {
  const auto define = [&](const std::string& name, std::function<Value(const Arguments&)> call) {
    globals_.set(bounds_, name, make_function(name, std::move(call)));
  };
  define("range", [this](const Arguments& a) { return range(bounds_, a); });
  define("dict", [this](const Arguments& a) { return make_dict(bounds_, dict_items(bounds_, a, "dict")); });
  define("strftime_now", [this](const Arguments& a) { return strftime_now(bounds_, a); });
  define("raise_exception", [this](const Arguments& a) -> Value {
    const Value* message = a.find(0, "message");
    throw Error("{}", message ? write(bounds_, *message) : "");
  });
  define("namespace", [this](const Arguments& a) {
    bounds_.make(sizeof(Namespace));
    Namespace space;
    for (auto& [key, value] : dict_items(bounds_, a, "namespace")) {
      if (!key.text()) throw Error("namespace: names must be texts");
      space.items.emplace_back(*key.text(), value);
    }
    spaces_.push_back(std::move(space));
    return Value(&spaces_.back());
  });
  define("joiner", [this](const Arguments& a) {
    a.check("joiner", 1, {"sep"});
    const Value separator = a.find(0, "sep") ? *a.find(0, "sep") : make_text(bounds_, ", ");
    auto used = std::make_shared<bool>(false);
    return make_function(
        "joiner", [=, this](const Arguments&) { return std::exchange(*used, true) ? separator : make_text(bounds_, ""); },
        separator.depth() + 1);
  });
}

std::string Interpreter::render(const Body& body) {
  run(body);
  return std::move(out_);
}

void Interpreter::print(std::string_view text) {
  bounds_.step(int64_t(text.size() / 64));
  if (out_.size() + text.size() > size_t(bounds_.value_bytes)) throw Error("the text is longer than {} bytes", bounds_.value_bytes);
  out_ += text;
}

Interpreter::Flow Interpreter::run(const Body& body) {
  for (const auto& statement : body) {
    if (const Flow flow = run(*statement); flow != Flow::on) return flow;
  }
  return Flow::on;
}

Interpreter::Flow Interpreter::run(const Statement& statement) {
  bounds_.step();
  line_ = statement.line;
  switch (statement.kind) {
    case Statement::Kind::text:
      print(statement.text);
      break;
    case Statement::Kind::print:
      print(write(bounds_, evaluate(*statement.value)));
      break;
    case Statement::Kind::branch: {
      size_t taken = 0;
      while (taken < statement.conditions.size() && !is_true(evaluate(*statement.conditions[taken]))) ++taken;
      return taken < statement.bodies.size() ? run(statement.bodies[taken]) : Flow::on;
    }
    case Statement::Kind::loop:
      return run_loop(statement);
    case Statement::Kind::set:
      assign(*statement.target, evaluate(*statement.value));
      break;
    case Statement::Kind::set_block:
      run_set_block(statement);
      break;
    case Statement::Kind::macro:
      scope_->set(bounds_, statement.macro.name, make_macro(statement.macro));
      break;
    case Statement::Kind::call:
      run_call(statement);
      break;
    case Statement::Kind::filter: {
      const Value body = make_text(bounds_, capture(statement.bodies[0]));
      print(write(bounds_, evaluate_filter(*statement.value, &body)));
      break;
    }
    case Statement::Kind::with: {
      const Values values = evaluate_all(statement.conditions);
      const Frame frame(*this);
      for (size_t i = 0; i < values.size(); ++i) assign(*statement.names[i], values[i]);
      return run(statement.bodies[0]);
    }
    case Statement::Kind::scope: {
      const Frame frame(*this);
      return run(statement.bodies[0]);
    }
    case Statement::Kind::leave_loop:
      return Flow::leave_loop;
    case Statement::Kind::next_turn:
      return Flow::next_turn;
  }
  return Flow::on;
}

Interpreter::Flow Interpreter::run_loop(const Statement& statement) {
  Values items = items_of(bounds_, evaluate(*statement.value));
  if (!statement.conditions.empty()) {
    Values kept;
    for (Value& item : items) {
      const Frame frame(*this);
      assign(*statement.target, item);
      if (is_true(evaluate(*statement.conditions[0]))) kept.push_back(std::move(item));
    }
    items = std::move(kept);
  }
  if (items.empty()) {
    if (statement.bodies.size() < 2) return Flow::on;
    const Frame frame(*this);
    return run(statement.bodies[1]);
  }
  const Value all = make_sequence(bounds_, std::move(items));
  const auto& shared = *all.get<std::shared_ptr<const Sequence>>();
  if (shared->depth >= max_data_depth) throw Error("values are nested more than {} deep", max_data_depth);
  for (size_t i = 0; i < shared->items.size(); ++i) {
    bounds_.step();
    const Frame frame(*this);
    scope_->set(bounds_, "loop", Value(std::make_shared<const Loop>(Loop{shared, i})));
    assign(*statement.target, shared->items[i]);
    if (run(statement.bodies[0]) == Flow::leave_loop) break;
  }
  return Flow::on;
}

std::string Interpreter::capture(const Body& body) {
  const Frame frame(*this);
  std::string outer = std::exchange(out_, {});
  run(body);
  return std::exchange(out_, std::move(outer));
}

void Interpreter::run_set_block(const Statement& statement) {
  Value body = make_text(bounds_, capture(statement.bodies[0]));
  if (statement.value) body = evaluate_filter(*statement.value, &body);
  assign(*statement.target, body);
}

void Interpreter::run_call(const Statement& statement) {
  const Value caller = make_macro(statement.macro);
  print(write(bounds_, evaluate_call(*statement.value, &caller)));
}

void Interpreter::assign(const Expression& target, const Value& value) {
  if (target.kind == Expression::Kind::name) return scope_->set(bounds_, target.text, value);
  if (target.kind == Expression::Kind::attribute) {
    const Value of = evaluate(*target.parts[0]);
    Namespace* space = of.space();
    if (space) bounds_.step(int64_t(space->items.size() / 16));
    if (!space) throw Error("cannot assign attribute '{}' on a value that is no namespace", target.text);
    for (auto& [name, old] : space->items) {
      if (name != target.text) continue;
      old = value;
      return;
    }
    bounds_.make(sizeof(Value));
    space->items.emplace_back(target.text, value);
    return;
  }
  const Values items = items_of(bounds_, value);
  if (items.size() != target.parts.size()) throw Error("cannot unpack {} values into {} names", items.size(), target.parts.size());
  for (size_t i = 0; i < items.size(); ++i) assign(*target.parts[i], items[i]);
}

Value Interpreter::make_macro(const Macro& macro) {
  for (Scope* scope = scope_; scope && !scope->kept; scope = scope->parent) scope->kept = true;
  return make_function(macro.name,
                       [this, &macro, home = scope_](const Arguments& arguments) { return call_macro(macro, home, arguments); });
}

Value Interpreter::call_macro(const Macro& macro, Scope* home, const Arguments& arguments) {
  if (macros_ >= max_call_depth) throw Error("macros call each other more than {} deep", max_call_depth);
  const int outer_line = line_;
  const Frame frame(*this, home);
  const size_t count = macro.parameters.size();
  if (arguments.positional.size() > count && !macro.uses_varargs) {
    throw Error("macro '{}' takes not more than {} argument(s)", macro.name, count);
  }
  std::vector<bool> used(arguments.named.size());
  std::vector<std::pair<std::string, Value>> given;
  for (size_t i = 0; i < count; ++i) {
    const Parameter& parameter = macro.parameters[i];
    bounds_.step(int64_t(1 + arguments.named.size() / 8));
    const Value* value = i < arguments.positional.size() ? &arguments.positional[i] : nullptr;
    for (size_t j = 0; j < arguments.named.size(); ++j) {
      if (arguments.named[j].first != parameter.name) continue;
      if (value) throw Error("macro '{}' got multiple values for argument '{}'", macro.name, parameter.name);
      value = &arguments.named[j].second;
      used[j] = true;
    }
    if (value) {
      scope_->set(bounds_, parameter.name, *value);
    } else if (parameter.value) {
      scope_->set(bounds_, parameter.name, evaluate(*parameter.value));
    } else {
      scope_->set(bounds_, parameter.name, make_undefined(fmt::format("parameter '{}' was not provided", parameter.name)));
    }
  }
  Pairs others;
  for (size_t j = 0; j < used.size(); ++j) {
    const auto& [name, value] = arguments.named[j];
    if (used[j]) continue;
    if (name == "caller" && macro.uses_caller) {
      scope_->set(bounds_, "caller", value);
    } else if (macro.uses_kwargs) {
      put(bounds_, others, make_text(bounds_, name), value);
    } else {
      throw Error("macro '{}' takes no keyword argument '{}'", macro.name, name);
    }
  }
  if (macro.uses_kwargs) scope_->set(bounds_, "kwargs", make_dict(bounds_, std::move(others)));
  if (macro.uses_varargs) {
    const auto& all = arguments.positional;
    scope_->set(bounds_, "varargs", make_sequence(bounds_, Values(all.begin() + long(std::min(count, all.size())), all.end()), true));
  }
  ++macros_;
  std::string text = capture(macro.body);
  --macros_;
  line_ = outer_line;
  return make_text(bounds_, std::move(text));
}

}  // namespace hadal::jinja
