// What a reply must look like, and which next tokens keep it so: exact for every tokenizer, because it works on the bytes of its tokens.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace hadal {

class Tokenizer;

struct ReplyForm {
  // structural_tag: pieces of the other kinds and whole tokens, composed in xgrammar's JSON notation (its docs/structural_tag).
  enum class Kind { json_schema, regex, ebnf, structural_tag } kind;
  std::string text;
  bool operator==(const ReplyForm&) const = default;
};
ReplyForm any_json_object();
ReplyForm one_of(std::span<const std::string> choices);  // Error: none, or an empty one

struct Grammar;  // a compiled form; immutable, shared by all replies that must have it

class Grammars {  // of one tokenizer; from any thread
 public:
  // end_tokens: those that may end a reply; no other special token is ever allowed. vocab: of the model, which may have more rows.
  Grammars(const Tokenizer& tokenizer, int64_t vocab, std::span<const int32_t> end_tokens);
  ~Grammars();
  // Milliseconds to seconds, nothing for one of the latest forms. after_reasoning: line breaks may come first. Error: what is wrong with
  // the form, or what of it is not supported.
  std::shared_ptr<const Grammar> compile(const ReplyForm& form, bool after_reasoning = false);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class Matcher {  // where one reply stands in its grammar
 public:
  // The reply is free until each token of `free_until` has come, in this order: the end of the reasoning, the beginning of a tool call.
  Matcher(std::shared_ptr<const Grammar> grammar, std::vector<int32_t> free_until);
  Matcher(Matcher&&) noexcept;
  ~Matcher();
  bool mask(std::span<float> logits);  // -inf for every token that may not come next; false: none may, which takes a vocabulary with gaps
  void accept(int32_t token);          // one that mask() left
  bool finished();                     // nothing but the end may come
  // What must come next, at most so many tokens; the last may still turn out otherwise.
  std::vector<int32_t> forced(int64_t most) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hadal
