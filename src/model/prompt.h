// From what a person wrote to the token ids a model is given.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/source.h"

namespace hadal {

struct Prompt {
  std::vector<int32_t> tokens;
  bool starts_in_reasoning = false;  // the template has opened the reasoning, the model goes on inside it
};

// The text as it is, behind the begin token where the tokenizer wants one.
Prompt raw_prompt(const Tokenizer& tokenizer, const std::string& text);

// The conversation as the template renders it; the template alone decides about the begin token. variables: a JSON object, or empty.
// In a prompt the template alone writes control tokens: what looks like one in a message is text, so that nobody speaks in another's name.
std::string chat_text(const Tokenizer& tokenizer, const ChatTemplate& chat, std::span<const Message> messages,
                      const std::string& variables = "", const std::string& tools = "");
// tools: a JSON array, for templates that tell the model of them. reply_start: what the reply has said already.
Prompt chat_prompt(const Tokenizer& tokenizer, const ChatTemplate& chat, std::span<const Message> messages,
                   const std::string& variables = "", const std::string& reply_start = "", const std::string& tools = "");
// The variables for models that reason when told to, "on" or "off"; none where nothing is said.
std::string thinking_variables(const std::string& on_or_off);

// The token behind which the answer begins where the reply starts in reasoning. Error: this tokenizer has none
int32_t reasoning_end(const Tokenizer& tokenizer);

// Tokens that end a reply: the config's and the tokenizer's.
std::vector<int32_t> end_tokens(const ModelConfig& config, const Tokenizer& tokenizer);

}  // namespace hadal
