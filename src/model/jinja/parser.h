// Source to tree. Everything that this subset of Jinja does not know is found here, not while rendering.
#pragma once
#include <string>

#include "model/jinja/lexer.h"
#include "model/jinja/syntax.h"

namespace hadal::jinja {

Body parse_template(const std::string& source);  // Error: "line N: ..."

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  Body parse_body(std::initializer_list<std::string_view> ends);  // up to a block that begins with one of these; empty: to the end

 private:
  // Statements (parser.cpp). The block's first name was taken; parse_block is at it.
  void parse_block(Body& body);
  void parse_for(Statement& statement);
  void parse_if(Statement& statement);
  void parse_set(Statement& statement);
  void parse_macro(Statement& statement);
  void parse_call_block(Statement& statement);
  void parse_with(Statement& statement);
  void parse_parameters(Macro& macro);
  void parse_macro_body(Macro& macro, std::string_view end);
  ExpressionPtr parse_target(bool with_attribute);
  void end_block(std::string_view name);  // {% name %}, its name being next
  void expect_block_end();

  // Expressions (parse_expression.cpp), from the loosest binding to the tightest.
  ExpressionPtr parse_tuple(bool with_conditional = true, bool parenthesised = false);
  ExpressionPtr parse_expression();
  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concat();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_unary(bool with_filters = true);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_name();
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_postfix(ExpressionPtr expression);
  ExpressionPtr parse_subscript(ExpressionPtr of);
  ExpressionPtr parse_filters(ExpressionPtr expression);
  ExpressionPtr parse_filter(ExpressionPtr of);  // at its name
  ExpressionPtr parse_test(ExpressionPtr of);
  void take_arguments(Expression& of);  // "( ... )"
  ExpressionPtr parse_binary(ExpressionPtr (Parser::*next)(), std::initializer_list<std::string_view> signs);
  std::string dotted_name();

  const Token& now() const { return tokens_[at_]; }
  const Token& after() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool is(Token::Kind kind, std::string_view text) const { return now().kind == kind && now().text == text; }
  bool is_sign(std::string_view text) const { return is(Token::Kind::sign, text); }
  bool is_name(std::string_view text) const { return is(Token::Kind::name, text); }
  bool skip(Token::Kind kind, std::string_view text);
  void expect_sign(std::string_view sign);
  std::string expect_name(std::string_view what);
  [[noreturn]] void fail(const std::string& message) const;
  [[noreturn]] void unexpected(std::string_view expected) const;
  ExpressionPtr make(Expression::Kind kind, int line, ExpressionPtr first = nullptr, ExpressionPtr second = nullptr);
  void add_part(Expression& to, ExpressionPtr part);
  void deepen(Expression& expression, int depth);

  const std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;         // of blocks and expressions being parsed
  int loops_ = 0;           // around the present statement, within its macro
  Macro* macro_ = nullptr;  // the one around it
  friend struct Nesting;
};

struct Nesting {  // one level deeper while it lives; Error when there are too many
  explicit Nesting(Parser& parser);
  ~Nesting() { --parser.nesting_; }
  Parser& parser;
};

}  // namespace hadal::jinja
