// Expressions, with Jinja's own precedence: a unary minus binds before a filter, "~" between sums and products.
#include <algorithm>

#include "core/error.h"
#include "model/jinja/library.h"
#include "model/jinja/parser.h"

namespace hadal::jinja {
namespace {

constexpr int max_depth = 200;

constexpr std::pair<std::string_view, Operator> operators[] = {
    {"+", Operator::add},
    {"-", Operator::subtract},
    {"*", Operator::multiply},
    {"/", Operator::divide},
    {"//", Operator::floor_divide},
    {"%", Operator::modulo},
    {"**", Operator::power},
    {"==", Operator::equal},
    {"!=", Operator::not_equal},
    {"<", Operator::less},
    {"<=", Operator::less_equal},
    {">", Operator::greater},
    {">=", Operator::greater_equal},
};

Operator operator_of(std::string_view sign) {
  return std::find_if(std::begin(operators), std::end(operators), [&](const auto& entry) { return entry.first == sign; })->second;
}

}  // namespace

void Parser::deepen(Expression& expression, int depth) {
  expression.depth = std::max(expression.depth, depth);
  if (expression.depth > max_depth) fail(fmt::format("an expression is nested more than {} deep", max_depth));
}

void Parser::add_part(Expression& to, ExpressionPtr part) {
  if (part) deepen(to, part->depth + 1);
  to.parts.push_back(std::move(part));
}

ExpressionPtr Parser::make(Expression::Kind kind, int line, ExpressionPtr first, ExpressionPtr second) {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = line;
  if (first) add_part(*expression, std::move(first));
  if (second) add_part(*expression, std::move(second));
  return expression;
}

ExpressionPtr Parser::parse_tuple(bool with_conditional, bool parenthesised) {
  const Nesting nesting(*this);
  const int line = now().line;
  const auto at_end = [&] {
    return now().kind == Token::Kind::print_end || now().kind == Token::Kind::block_end || is_sign(")") || is_name("recursive");
  };
  if (parenthesised && is_sign(")")) return make(Expression::Kind::tuple, line);
  ExpressionPtr first = with_conditional ? parse_expression() : parse_or();
  if (!is_sign(",")) return first;
  ExpressionPtr tuple = make(Expression::Kind::tuple, line, std::move(first));
  while (skip(Token::Kind::sign, ",") && !at_end()) add_part(*tuple, with_conditional ? parse_expression() : parse_or());
  return tuple;
}

ExpressionPtr Parser::parse_expression() {
  const Nesting nesting(*this);
  ExpressionPtr expression = parse_or();
  while (is_name("if")) {
    const int line = take().line;
    ExpressionPtr condition = parse_or();
    ExpressionPtr otherwise = skip(Token::Kind::name, "else") ? parse_expression() : nullptr;
    ExpressionPtr whole = make(Expression::Kind::conditional, line, std::move(condition), std::move(expression));
    add_part(*whole, std::move(otherwise));
    expression = std::move(whole);
  }
  return expression;
}

ExpressionPtr Parser::parse_or() {
  ExpressionPtr left = parse_and();
  while (is_name("or")) {
    const int line = take().line;
    left = make(Expression::Kind::logical_or, line, std::move(left), parse_and());
  }
  return left;
}

ExpressionPtr Parser::parse_and() {
  ExpressionPtr left = parse_not();
  while (is_name("and")) {
    const int line = take().line;
    left = make(Expression::Kind::logical_and, line, std::move(left), parse_not());
  }
  return left;
}

ExpressionPtr Parser::parse_not() {
  if (!is_name("not")) return parse_compare();
  const Nesting nesting(*this);
  const int line = take().line;
  return make(Expression::Kind::logical_not, line, parse_not());
}

ExpressionPtr Parser::parse_compare() {
  const int line = now().line;
  ExpressionPtr first = parse_sum();
  ExpressionPtr compare;
  for (;;) {
    Operator op;
    const bool negated = is_name("not") && after().kind == Token::Kind::name && after().text == "in";
    if (negated || is_name("in")) {
      op = negated ? Operator::not_in : Operator::in;
      if (negated) take();
    } else if (is_sign("==") || is_sign("!=") || is_sign("<") || is_sign("<=") || is_sign(">") || is_sign(">=")) {
      op = operator_of(now().text);
    } else {
      return compare ? std::move(compare) : std::move(first);
    }
    take();
    if (!compare) compare = make(Expression::Kind::compare, line, std::move(first));
    compare->operators.push_back(op);
    add_part(*compare, parse_sum());
  }
}

ExpressionPtr Parser::parse_binary(ExpressionPtr (Parser::*next)(), std::initializer_list<std::string_view> signs) {
  ExpressionPtr left = (this->*next)();
  while (now().kind == Token::Kind::sign && std::find(signs.begin(), signs.end(), now().text) != signs.end()) {
    const Token& sign = take();
    left = make(Expression::Kind::binary, sign.line, std::move(left), (this->*next)());
    left->operators.push_back(operator_of(sign.text));
  }
  return left;
}

ExpressionPtr Parser::parse_sum() { return parse_binary(&Parser::parse_concat, {"+", "-"}); }
ExpressionPtr Parser::parse_product() { return parse_binary(&Parser::parse_power, {"*", "/", "//", "%"}); }

ExpressionPtr Parser::parse_power() {
  ExpressionPtr left = parse_unary();
  while (is_sign("**")) {
    const int line = take().line;
    left = make(Expression::Kind::binary, line, std::move(left), parse_unary());
    left->operators.push_back(Operator::power);
  }
  return left;
}

ExpressionPtr Parser::parse_concat() {
  ExpressionPtr first = parse_product();
  if (!is_sign("~")) return first;
  ExpressionPtr concat = make(Expression::Kind::concat, now().line, std::move(first));
  while (skip(Token::Kind::sign, "~")) add_part(*concat, parse_product());
  return concat;
}

ExpressionPtr Parser::parse_unary(bool with_filters) {
  const Nesting nesting(*this);
  const int line = now().line;
  ExpressionPtr expression;
  if (skip(Token::Kind::sign, "-")) {
    expression = make(Expression::Kind::negate, line, parse_unary(false));
  } else if (skip(Token::Kind::sign, "+")) {
    expression = make(Expression::Kind::plus, line, parse_unary(false));
  } else {
    expression = parse_primary();
  }
  expression = parse_postfix(std::move(expression));
  return with_filters ? parse_filters(std::move(expression)) : std::move(expression);
}

ExpressionPtr Parser::parse_primary() {
  const Token& token = now();
  if (token.kind == Token::Kind::name) return parse_name();
  if (is_sign("(")) {
    take();
    ExpressionPtr inner = parse_tuple(true, true);
    expect_sign(")");
    return inner;
  }
  if (is_sign("[")) return parse_list();
  if (is_sign("{")) return parse_dict();
  ExpressionPtr literal = make(Expression::Kind::literal, token.line);
  if (token.kind == Token::Kind::string) {
    std::string text;
    while (now().kind == Token::Kind::string) text += take().text;
    literal->value = Value(std::make_shared<const std::string>(std::move(text)));
  } else if (token.kind == Token::Kind::integer) {
    literal->value = Value(take().integer);
  } else if (token.kind == Token::Kind::real) {
    literal->value = Value(take().real);
  } else {
    unexpected("an expression");
  }
  return literal;
}

ExpressionPtr Parser::parse_name() {
  const Token& token = take();
  const std::string& text = token.text;
  ExpressionPtr expression = make(Expression::Kind::literal, token.line);
  if (text == "true" || text == "True" || text == "false" || text == "False") {
    expression->value = Value(text[0] == 't' || text[0] == 'T');
  } else if (text == "none" || text == "None") {
    expression->value = Value(None{});
  } else {
    expression->kind = Expression::Kind::name;
    expression->text = text;
    if (macro_ && text == "varargs") macro_->uses_varargs = true;
    if (macro_ && text == "kwargs") macro_->uses_kwargs = true;
    if (macro_ && text == "caller") macro_->uses_caller = true;
  }
  return expression;
}

ExpressionPtr Parser::parse_list() {
  ExpressionPtr list = make(Expression::Kind::list, take().line);
  while (!is_sign("]")) {
    if (!list->parts.empty()) expect_sign(",");
    if (is_sign("]")) break;
    add_part(*list, parse_expression());
  }
  take();
  return list;
}

ExpressionPtr Parser::parse_dict() {
  ExpressionPtr dict = make(Expression::Kind::dict, take().line);
  while (!is_sign("}")) {
    if (!dict->parts.empty()) expect_sign(",");
    if (is_sign("}")) break;
    add_part(*dict, parse_expression());
    expect_sign(":");
    add_part(*dict, parse_expression());
  }
  take();
  return dict;
}

ExpressionPtr Parser::parse_postfix(ExpressionPtr expression) {
  for (;;) {
    if (is_sign(".") || is_sign("[")) {
      expression = parse_subscript(std::move(expression));
    } else if (is_sign("(")) {
      const int line = now().line;
      expression = make(Expression::Kind::call, line, std::move(expression));
      take_arguments(*expression);
    } else {
      return expression;
    }
  }
}

ExpressionPtr Parser::parse_subscript(ExpressionPtr of) {
  const Token& token = take();
  if (token.text == ".") {
    if (now().kind == Token::Kind::integer) {
      ExpressionPtr index = make(Expression::Kind::literal, token.line);
      index->value = Value(take().integer);
      return make(Expression::Kind::subscript, token.line, std::move(of), std::move(index));
    }
    ExpressionPtr attribute = make(Expression::Kind::attribute, token.line, std::move(of));
    attribute->text = expect_name("a name or a number");
    return attribute;
  }
  const auto bound = [&]() -> ExpressionPtr { return is_sign(":") || is_sign("]") ? nullptr : parse_expression(); };
  if (is_sign("]")) unexpected("an index");
  ExpressionPtr first = bound();
  if (is_sign("]")) {
    take();
    return make(Expression::Kind::subscript, token.line, std::move(of), std::move(first));
  }
  ExpressionPtr slice = make(Expression::Kind::slice, token.line, std::move(of));
  add_part(*slice, std::move(first));
  expect_sign(":");
  add_part(*slice, bound());
  add_part(*slice, skip(Token::Kind::sign, ":") ? bound() : nullptr);
  expect_sign("]");
  return slice;
}

ExpressionPtr Parser::parse_filters(ExpressionPtr expression) {
  for (;;) {
    if (skip(Token::Kind::sign, "|")) {
      expression = parse_filter(std::move(expression));
    } else if (is_name("is")) {
      expression = parse_test(std::move(expression));
    } else if (is_sign("(")) {
      const int line = now().line;
      expression = make(Expression::Kind::call, line, std::move(expression));
      take_arguments(*expression);
    } else {
      return expression;
    }
  }
}

std::string Parser::dotted_name() {
  std::string name = expect_name("a name");
  while (skip(Token::Kind::sign, ".")) name.append(1, '.').append(expect_name("a name"));
  return name;
}

ExpressionPtr Parser::parse_filter(ExpressionPtr of) {
  const int line = now().line;
  const std::string name = dotted_name();
  if (!find_filter(name)) fail(fmt::format("filter '{}' is not known", name));
  ExpressionPtr filter = make(Expression::Kind::filter, line);
  filter->text = name;
  add_part(*filter, std::move(of));
  if (is_sign("(")) take_arguments(*filter);
  return filter;
}

ExpressionPtr Parser::parse_test(ExpressionPtr of) {
  const int line = take().line;
  const bool negated = skip(Token::Kind::name, "not");
  const std::string name = dotted_name();
  if (!find_test(name)) fail(fmt::format("test '{}' is not known", name));
  ExpressionPtr test = make(Expression::Kind::test, line, std::move(of));
  test->text = name;
  const Token::Kind kind = now().kind;
  if (is_sign("(")) {
    take_arguments(*test);
  } else if (is_name("is")) {
    fail("tests cannot be chained with 'is'");
  } else if (kind == Token::Kind::string || kind == Token::Kind::integer || kind == Token::Kind::real || is_sign("[") || is_sign("{") ||
             (kind == Token::Kind::name && !is_name("else") && !is_name("or") && !is_name("and"))) {
    test->arguments.push_back({Argument::Kind::positional, "", parse_postfix(parse_primary())});
    deepen(*test, test->arguments[0].value->depth + 1);
  }
  return negated ? make(Expression::Kind::logical_not, line, std::move(test)) : std::move(test);
}

void Parser::take_arguments(Expression& of) {
  const Nesting nesting(*this);
  expect_sign("(");
  while (!is_sign(")")) {
    if (!of.arguments.empty()) expect_sign(",");
    if (is_sign(")")) break;
    Argument argument;
    if (skip(Token::Kind::sign, "*")) {
      argument.kind = Argument::Kind::spread;
    } else if (skip(Token::Kind::sign, "**")) {
      argument.kind = Argument::Kind::spread_named;
    } else if (now().kind == Token::Kind::name && after().kind == Token::Kind::sign && after().text == "=") {
      argument.kind = Argument::Kind::named;
      argument.name = take().text;
      take();
    } else if (!of.arguments.empty() && of.arguments.back().kind != Argument::Kind::positional) {
      fail("a positional argument follows named ones");
    }
    argument.value = parse_expression();
    deepen(of, argument.value->depth + 1);
    of.arguments.push_back(std::move(argument));
  }
  take();
}

}  // namespace hadal::jinja
