// The OpenAI interface's JSON, in and out. Source: OpenAI API reference, chat completions and completions; further fields as vLLM has them.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/error.h"
#include "infer/engine.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"

namespace hadal {

class ApiError : public Error {  // what a client did wrong, in the shape that its library knows
 public:
  ApiError(int status, std::string message, std::string parameter = "", std::string code = "");
  int status;
  std::string parameter, code;  // empty: null
  std::string json() const;
};

struct CompletionCall {  // what both ways of asking share
  std::string model;     // empty: whichever there is
  Sampling sampling;
  bool seeded = false;     // the client has chosen the seed
  int64_t max_tokens = 0;  // 0: as many as fit
  int64_t choices = 1;     // for each prompt
  int64_t logprobs = -1;   // alternatives; -1: none
  std::vector<std::string> stops;
  bool stream = false, include_usage = false;
};

struct ChatCall : CompletionCall {
  std::vector<Message> messages;
  std::string template_variables;  // JSON; empty: none
};

using TextOrTokens = std::variant<std::string, std::vector<int32_t>>;
struct TextCall : CompletionCall {
  std::vector<TextOrTokens> prompts;
  bool echo = false;
};

// `defaults`: for what the body leaves open. ApiError names the field; unknown fields are ignored.
ChatCall parse_chat_call(const std::string& body, const Sampling& defaults);
TextCall parse_text_call(const std::string& body, const Sampling& defaults);
std::vector<Message> parse_messages(const std::string& body);  // of {"messages": [...]}
std::string parse_text(const std::string& body);               // of {"content": ...} or {"prompt": ...}
std::vector<int32_t> parse_tokens(const std::string& body);    // of {"tokens": [...]}

// What a reply consists of, one object for each event of a stream.
struct ReplyHead {
  bool chat;
  std::string id, model;
  int64_t created;  // seconds since 1970
};
struct Delta {  // what one choice has to add
  int64_t choice = 0;
  bool first = false;  // chat: tells the role
  std::string reasoning, text;
  std::vector<std::vector<Logprob>> logprobs;  // of each token
  const char* finish = nullptr;
};
struct Usage {
  int64_t prompt = 0, reply = 0;
};

std::string chunk_json(const ReplyHead& head, const Delta& delta, const Tokenizer& tokenizer, bool null_usage);
std::string usage_chunk_json(const ReplyHead& head, const Usage& usage);
std::string whole_json(const ReplyHead& head, const std::vector<Delta>& choices, const Usage& usage, const Tokenizer& tokenizer);
std::string model_json(const std::string& id, int64_t created, int64_t context);
std::string models_json(const std::string& id, int64_t created, int64_t context);

}  // namespace hadal
