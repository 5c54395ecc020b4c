// One reply from the engine, as text and as figures.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "infer/engine.h"
#include "model/prompt.h"
#include "model/reply.h"

namespace hadal {

struct CompletionRequest {
  Prompt prompt;
  Sampling sampling;
  int64_t max_tokens = 256, logprobs = -1;
  int64_t keep = -1;  // see Request
  std::shared_ptr<const Adapter> adapter;
  std::vector<int32_t> end_tokens;
  std::shared_ptr<const Grammar> grammar;  // empty: the reply is free
  std::vector<std::string> stops;
  bool separate_reasoning = true;
};

struct Completion {
  std::vector<Token> tokens;
  std::string answer, reasoning;
  const char* finish = "stop";  // stop, length or interrupted
  int64_t prompt_tokens = 0;
  double prompt_seconds = 0, reply_seconds = 0;  // until the first token; from the first to the last
  DraftFigures drafts;
  double prompt_rate() const { return double(prompt_tokens) / prompt_seconds; }
  double reply_rate() const { return double(tokens.size() - 1) / reply_seconds; }  // of at least two tokens
};

// Runs until the reply ends or Ctrl-C is pressed (InterruptGuard). `show` is called with each token and the text that became readable with
// it, and at the end once without a token. Error: what Engine::submit says.
using ShowReply = std::function<void(const Token* token, std::span<const ReplyPiece> text)>;
Completion complete(Engine& engine, const Tokenizer& tokenizer, const CompletionRequest& request, const ShowReply& show);

// "12 prompt tokens at 340/s, 56 tokens at 78.9/s, finish: stop"
std::string figures(const Completion& completion);

// Writes a reply to standard output as it comes: reasoning dimmed on a terminal, between <think> and </think> elsewhere.
class ReplyPrinter {
 public:
  void show(std::span<const ReplyPiece> text);
  void finish();  // closes what is open and ends the line

 private:
  void open_reasoning();
  void close_reasoning();
  bool in_reasoning_ = false, line_open_ = false;
};

}  // namespace hadal
