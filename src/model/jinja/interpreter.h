// Walks the tree of a template and writes its text.
#pragma once
#include <deque>
#include <map>
#include <memory>
#include <string>

#include "model/jinja/syntax.h"
#include "model/jinja/value.h"

namespace hadal::jinja {

struct Scope {  // the names of one loop turn, macro call or template
  Scope* parent;
  std::vector<std::pair<std::string, Value>> names;
  bool kept = false;  // a macro looks into it: it lives as long as the rendering
  Value* find(Bounds& bounds, std::string_view name);
  void set(Bounds& bounds, std::string_view name, Value value);
};

class Interpreter {
 public:
  Interpreter(Bounds& bounds, std::vector<std::pair<std::string, Value>> variables);
  ~Interpreter();
  std::string render(const Body& body);  // Error without a place; line() is where it happened
  int line() const { return line_; }

 private:
  enum class Flow { on, leave_loop, next_turn };
  struct Frame;  // a new scope while it lives
  Flow run(const Body& body);
  Flow run(const Statement& statement);
  Flow run_loop(const Statement& statement);
  void run_set_block(const Statement& statement);
  void run_call(const Statement& statement);
  std::string capture(const Body& body);  // what it prints, in a scope of its own
  void print(std::string_view text);
  void assign(const Expression& target, const Value& value);
  Value make_macro(const Macro& macro);
  Value call_macro(const Macro& macro, Scope* home, const Arguments& arguments);
  void define_globals();

  Value evaluate(const Expression& expression);
  Value evaluate_slice(const Expression& expression);
  Value evaluate_dict(const Expression& expression);
  Value evaluate_concat(const Expression& expression);
  Value evaluate_call(const Expression& expression, const Value* caller = nullptr);
  Value evaluate_filter(const Expression& expression, const Value* body = nullptr);
  bool evaluate_compare(const Expression& expression);
  bool evaluate_test(const Expression& expression);
  Values evaluate_all(const std::vector<ExpressionPtr>& parts);
  Arguments evaluate(const std::vector<Argument>& arguments);
  Value look_up(const std::string& name);

  Bounds& bounds_;
  std::deque<std::unique_ptr<Scope>> kept_;
  std::deque<Namespace> spaces_;
  Scope globals_{nullptr, {}, true}, top_{&globals_, {}, true};
  Scope* scope_ = &top_;
  std::string out_;
  int line_ = 0, macros_ = 0, depth_ = 0;  // depth_: of expressions in expressions, through macros too
};

}  // namespace hadal::jinja
