// Statements: blocks, loops, branches, macros.
#include "model/jinja/parser.h"

#include <algorithm>

#include "core/error.h"
#include "model/jinja/library.h"

namespace hadal::jinja {
namespace {
constexpr int max_nesting = 200;  // a bracket takes three
}

Body parse_template(const std::string& source) {
  Parser parser(read_tokens(source));
  return parser.parse_body({});
}

Nesting::Nesting(Parser& p) : parser(p) {
  if (++parser.nesting_ <= max_nesting) return;
  --parser.nesting_;
  parser.fail("nested too deeply");
}

void Parser::fail(const std::string& message) const { throw Error("line {}: {}", now().line, message); }

void Parser::unexpected(std::string_view expected) const {
  constexpr std::string_view names[] = {"text",   "'{{'",    "'}}'",  "'{%'", "'%}'",           "name",
                                        "string", "integer", "float", "sign", "end of template"};
  const bool shown = now().kind == Token::Kind::name || now().kind == Token::Kind::sign;
  fail(fmt::format("{} expected, found {}", expected, shown ? fmt::format("'{}'", now().text) : std::string(names[int(now().kind)])));
}

bool Parser::skip(Token::Kind kind, std::string_view text) {
  if (!is(kind, text)) return false;
  take();
  return true;
}

void Parser::expect_sign(std::string_view sign) {
  if (!skip(Token::Kind::sign, sign)) unexpected(fmt::format("'{}'", sign));
}

std::string Parser::expect_name(std::string_view what) {
  if (now().kind != Token::Kind::name) unexpected(what);
  return take().text;
}

void Parser::expect_block_end() {
  if (now().kind != Token::Kind::block_end) unexpected("'%}'");
  take();
}

void Parser::end_block(std::string_view name) {
  if (!skip(Token::Kind::name, name)) unexpected(fmt::format("'{}'", name));
  expect_block_end();
}

Body Parser::parse_body(std::initializer_list<std::string_view> ends) {
  const Nesting nesting(*this);
  Body body;
  for (;;) {
    const Token& token = take();
    if (token.kind == Token::Kind::end) {
      if (ends.size() == 0) return body;
      fail(fmt::format("the template ends, '{}' is expected", *(ends.end() - 1)));
    }
    if (token.kind == Token::Kind::block_begin) {
      if (now().kind == Token::Kind::name && std::find(ends.begin(), ends.end(), now().text) != ends.end()) return body;
      parse_block(body);
      continue;
    }
    auto statement = std::make_unique<Statement>();
    statement->line = token.line;
    statement->kind = token.kind == Token::Kind::text ? Statement::Kind::text : Statement::Kind::print;
    if (token.kind == Token::Kind::text) {
      statement->text = token.text;
    } else {
      statement->value = parse_tuple();
      if (now().kind != Token::Kind::print_end) unexpected("'}}'");
      take();
    }
    body.push_back(std::move(statement));
  }
}

void Parser::parse_block(Body& body) {
  auto statement = std::make_unique<Statement>();
  statement->line = now().line;
  if (now().kind != Token::Kind::name) unexpected("the name of a block");
  const std::string name = now().text;
  if (name == "for") {
    take(), parse_for(*statement);
  } else if (name == "if") {
    take(), parse_if(*statement);
  } else if (name == "set") {
    take(), parse_set(*statement);
  } else if (name == "macro") {
    take(), parse_macro(*statement);
  } else if (name == "call") {
    take(), parse_call_block(*statement);
  } else if (name == "with") {
    take(), parse_with(*statement);
  } else if (name == "filter") {
    take();
    statement->kind = Statement::Kind::filter;
    statement->value = parse_filter(nullptr);
    while (skip(Token::Kind::sign, "|")) statement->value = parse_filter(std::move(statement->value));
    expect_block_end();
    statement->bodies.push_back(parse_body({"endfilter"}));
    end_block("endfilter");
  } else if (name == "generation") {  // marks what a model wrote, for training
    take(), expect_block_end();
    statement->kind = Statement::Kind::scope;
    statement->bodies.push_back(parse_body({"endgeneration"}));
    end_block("endgeneration");
  } else if (name == "break" || name == "continue") {
    if (loops_ == 0) fail(fmt::format("'{}' outside of a loop", name));
    take(), expect_block_end();
    statement->kind = name == "break" ? Statement::Kind::leave_loop : Statement::Kind::next_turn;
  } else {
    fail(fmt::format("block '{}' is not known", name));
  }
  body.push_back(std::move(statement));
}

ExpressionPtr Parser::parse_target(bool with_attribute) {
  const auto one = [&]() -> ExpressionPtr {
    const Nesting nesting(*this);
    const int line = now().line;
    if (skip(Token::Kind::sign, "(")) {
      ExpressionPtr inner = parse_target(with_attribute);
      expect_sign(")");
      return inner;
    }
    ExpressionPtr target = make(Expression::Kind::name, line);
    target->text = expect_name("a name to assign to");
    for (const std::string_view word : {"true", "false", "none", "True", "False", "None"}) {
      if (target->text == word) fail(fmt::format("'{}' cannot be assigned to", word));
    }
    if (!with_attribute || !skip(Token::Kind::sign, ".")) return target;
    target = make(Expression::Kind::attribute, line, std::move(target));
    target->text = expect_name("the name of an attribute");
    return target;
  };
  ExpressionPtr first = one();
  if (!is_sign(",")) return first;
  const int line = first->line;
  ExpressionPtr tuple = make(Expression::Kind::tuple, line, std::move(first));
  while (skip(Token::Kind::sign, ",")) {
    if (now().kind != Token::Kind::name && !is_sign("(")) break;
    if (is_name("in")) break;
    add_part(*tuple, one());
  }
  return tuple;
}

void Parser::parse_for(Statement& statement) {
  statement.kind = Statement::Kind::loop;
  statement.target = parse_target(false);
  if (!skip(Token::Kind::name, "in")) unexpected("'in'");
  statement.value = parse_tuple(false);
  if (is_name("recursive")) fail("recursive loops are not known");
  if (skip(Token::Kind::name, "if")) statement.conditions.push_back(parse_expression());
  if (is_name("recursive")) fail("recursive loops are not known");
  expect_block_end();
  ++loops_;
  statement.bodies.push_back(parse_body({"else", "endfor"}));
  --loops_;
  if (skip(Token::Kind::name, "else")) {
    expect_block_end();
    statement.bodies.push_back(parse_body({"endfor"}));
  }
  end_block("endfor");
}

void Parser::parse_if(Statement& statement) {
  statement.kind = Statement::Kind::branch;
  do {
    statement.conditions.push_back(parse_tuple(false));
    expect_block_end();
    statement.bodies.push_back(parse_body({"elif", "else", "endif"}));
  } while (skip(Token::Kind::name, "elif"));
  if (skip(Token::Kind::name, "else")) {
    expect_block_end();
    statement.bodies.push_back(parse_body({"endif"}));
  }
  end_block("endif");
}

void Parser::parse_set(Statement& statement) {
  statement.target = parse_target(true);
  if (skip(Token::Kind::sign, "=")) {
    statement.kind = Statement::Kind::set;
    statement.value = parse_tuple();
    return expect_block_end();
  }
  statement.kind = Statement::Kind::set_block;
  while (skip(Token::Kind::sign, "|")) statement.value = parse_filter(std::move(statement.value));
  expect_block_end();
  statement.bodies.push_back(parse_body({"endset"}));
  end_block("endset");
}

void Parser::parse_parameters(Macro& macro) {
  expect_sign("(");
  while (!is_sign(")")) {
    if (!macro.parameters.empty()) expect_sign(",");
    if (is_sign(")")) break;
    Parameter parameter;
    parameter.name = expect_name("the name of a parameter");
    if (skip(Token::Kind::sign, "=")) {
      parameter.value = parse_expression();
    } else if (!macro.parameters.empty() && macro.parameters.back().value) {
      fail("non-default argument follows default argument");
    }
    macro.parameters.push_back(std::move(parameter));
  }
  expect_sign(")");
}

void Parser::parse_macro_body(Macro& macro, std::string_view end) {
  expect_block_end();
  const auto outer_macro = std::exchange(macro_, &macro);
  const auto outer_loops = std::exchange(loops_, 0);
  macro.body = parse_body({end});
  macro_ = outer_macro;
  loops_ = outer_loops;
  end_block(end);
}

void Parser::parse_macro(Statement& statement) {
  statement.kind = Statement::Kind::macro;
  statement.macro.name = expect_name("the name of a macro");
  parse_parameters(statement.macro);
  parse_macro_body(statement.macro, "endmacro");
}

void Parser::parse_call_block(Statement& statement) {
  statement.kind = Statement::Kind::call;
  statement.macro.name = "caller";
  if (is_sign("(")) parse_parameters(statement.macro);
  statement.value = parse_expression();
  if (statement.value->kind != Expression::Kind::call) fail("a call is expected");
  parse_macro_body(statement.macro, "endcall");
}

void Parser::parse_with(Statement& statement) {
  statement.kind = Statement::Kind::with;
  while (now().kind != Token::Kind::block_end) {
    if (!statement.names.empty()) expect_sign(",");
    statement.names.push_back(parse_target(false));
    expect_sign("=");
    statement.conditions.push_back(parse_expression());
  }
  expect_block_end();
  statement.bodies.push_back(parse_body({"endwith"}));
  end_block("endwith");
}

}  // namespace hadal::jinja
