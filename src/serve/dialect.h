// What every interface to the server has in common: one kind of call, one kind of reply. A dialect is how an interface writes them down.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "core/error.h"
#include "infer/engine.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"

namespace hadal {

class ApiError : public Error {  // what a client did wrong; its dialect tells it in the shape that the client's library knows
 public:
  ApiError(int status, const std::string& message, std::string parameter = "", std::string code = "")
      : Error(message), status(status), parameter(std::move(parameter)), code(std::move(code)) {}
  int status;
  std::string parameter, code;  // empty: none
  std::string allowed;          // methods, with 405
  int64_t retry_after = 1;      // seconds, with 429 and 503
};

using TextOrTokens = std::variant<std::string, std::vector<int32_t>>;

struct Call {
  std::string model;  // empty: whichever there is
  // One of the two: a conversation, or texts to go on with.
  std::vector<Message> messages;
  std::vector<TextOrTokens> prompts;
  std::string template_variables;  // JSON object; empty: none
  std::string reply_start;         // the reply to `messages` goes on behind this, and does not repeat it
  Sampling sampling;
  bool seeded = false;     // the client has chosen the seed
  int64_t max_tokens = 0;  // 0: as many as fit
  int64_t choices = 1;     // for each prompt
  int64_t logprobs = -1;   // alternatives; -1: none
  std::vector<std::string> stops;
  bool stream = false;
  bool include_usage = false;    // at a stream's end
  bool return_progress = false;  // events of a stream while the prompt is read
  bool echo = false;             // the prompt before the reply
  bool prompt_only = false;      // and no reply
  double timeout = 0;            // seconds for the whole reply; 0: none
  int64_t priority = 0;          // the greater come first
  // JSON as OpenAI's chat has it, whatever the dialect; empty: absent.
  std::string tools, tool_choice, response_format;
  bool parallel_tool_calls = true;
  std::string guided_regex, guided_choice, guided_grammar;  // as vLLM has them; guided_choice: a JSON array of strings
};

struct ToolCallPiece {
  int64_t index = 0;      // of the call in its reply
  std::string id, name;   // with a call's first piece
  std::string arguments;  // JSON, as far as it has come
};

enum class End { none, stop, stop_text, length, tool_calls };

struct Delta {  // what one choice has to add; in a whole reply everything that it says
  int64_t choice = 0;
  std::string reasoning, text;
  std::vector<ToolCallPiece> tool_calls;
  std::vector<std::vector<Logprob>> logprobs;  // of each token, its own first; NaN for a prompt's first
  End end = End::none;
  std::string stop;  // the text that ended it, with End::stop_text
  bool empty() const { return reasoning.empty() && text.empty() && tool_calls.empty() && logprobs.empty() && end == End::none; }
};

struct Usage {
  int64_t prompt = 0, reply = 0;
  int64_t reasoning = 0;  // of the reply
  int64_t cached = 0;     // of the prompt: known from before
};

// One reply's shape. A stream: begin, progress and delta as they come, end; each gives text to be sent, or none. Otherwise: whole.
class ReplyFormat {
 public:
  virtual ~ReplyFormat() = default;
  virtual std::string begin(const Usage&) { return ""; }                       // what is known: the prompt's tokens
  virtual std::string progress(int64_t /*read*/, const Usage&) { return ""; }  // so many tokens of the prompts have been read
  virtual std::string delta(const Delta& delta) = 0;
  virtual std::string end(const Usage& usage) = 0;
  virtual std::string failure(const std::string& error) { return "data: " + error + "\n\n"; }  // instead of an end
  virtual std::string whole(const std::vector<Delta>& choices, const Usage& usage) = 0;
};

struct ReplyContext {
  std::string model;
  int64_t created;  // seconds since 1970
  const Tokenizer& tokenizer;
};

struct Dialect {
  bool chat;                                                         // reasoning and tool calls are told apart from the text
  Call (*parse)(const std::string& body, const Sampling& defaults);  // ApiError; unknown fields are ignored
  std::unique_ptr<ReplyFormat> (*format)(const Call& call, ReplyContext context);
  std::string (*error)(const ApiError& error);
};
extern const Dialect openai_chat, openai_text, openai_responses, anthropic_messages;

std::string new_id(const char* prefix);  // unlike all others

// For whichever JSON library the caller writes with. What is no UTF-8 is replaced.
template <class Json>
std::string to_text(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}
template <class Json>
std::string sse(const Json& data) {
  return "data: " + to_text(data) + "\n\n";
}
template <class Json>
std::string sse(const std::string& event, const Json& data) {
  return "event: " + event + "\ndata: " + to_text(data) + "\n\n";
}

}  // namespace hadal
