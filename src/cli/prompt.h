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

// The conversation as the template renders it; the template alone decides about the begin token.
struct TemplateVariables {
  std::optional<bool> thinking;  // the switch that models with optional reasoning know as `thinking` or `enable_thinking`
};
Prompt chat_prompt(const Tokenizer& tokenizer, const ChatTemplate& chat, std::span<const Message> messages,
                   const TemplateVariables& variables);

// Tokens that end a reply: the config's and the tokenizer's.
std::vector<int32_t> end_tokens(const ModelConfig& config, const Tokenizer& tokenizer);

}  // namespace hadal
