// The tree of a template. One node type for expressions and one for statements; `parts` of each kind are said beside it.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "model/jinja/value.h"

namespace hadal::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

enum class Operator {
  add,
  subtract,
  multiply,
  divide,
  floor_divide,
  modulo,
  power,
  equal,
  not_equal,
  less,
  less_equal,
  greater,
  greater_equal,
  in,
  not_in
};

struct Argument {
  enum class Kind { positional, named, spread, spread_named } kind = Kind::positional;  // x, name=x, *x, **x
  std::string name;
  ExpressionPtr value;
};

struct Expression {
  enum class Kind {
    literal,  // value
    name,     // text
    list,
    tuple,  // parts
    dict,   // parts: key, value, key, value, ...
    negate,
    plus,
    logical_not,  // parts[0]
    logical_and,
    logical_or,   // parts[0], parts[1]
    binary,       // parts[0] operators[0] parts[1]
    compare,      // parts[0] operators[0] parts[1] operators[1] parts[2] ...
    concat,       // parts, as texts
    conditional,  // parts: condition, then, else or nullptr
    attribute,    // parts[0] . text
    subscript,    // parts[0] [ parts[1] ]
    slice,        // parts[0] [ parts[1] : parts[2] : parts[3] ], any of these nullptr
    call,         // parts[0] ( arguments )
    filter,
    test  // parts[0] (nullptr: the body of a filter block), text, arguments
  };
  Kind kind;
  int line;
  int depth = 1;  // of the tree below, bounded by the parser
  std::string text;
  Value value;
  std::vector<ExpressionPtr> parts;
  std::vector<Operator> operators;
  std::vector<Argument> arguments;
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

struct Parameter {
  std::string name;
  ExpressionPtr value;  // default; nullptr: none
};

struct Macro {
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
  bool uses_varargs = false, uses_kwargs = false, uses_caller = false;
};

struct Statement {
  enum class Kind {
    text,       // text
    print,      // value
    branch,     // conditions[i] -> bodies[i], the last body being "else" when there is one more
    loop,       // for target in value [if conditions[0]]: bodies[0], else bodies[1]
    set,        // target = value
    set_block,  // target = bodies[0], through the filters of value when it is there
    macro,      // macro
    call,       // value is a call, given macro as its caller
    filter,     // bodies[0] through value
    with,       // names[i] = conditions[i] for bodies[0]
    scope,      // bodies[0]
    leave_loop,
    next_turn
  };
  Kind kind;
  int line;
  std::string text;
  ExpressionPtr target, value;
  std::vector<ExpressionPtr> conditions, names;
  std::vector<Body> bodies;
  Macro macro;
};

}  // namespace hadal::jinja
