#include "model/prompt.h"

#include <algorithm>

#include "core/error.h"
#include "model/reply.h"

namespace hadal {
namespace {

std::string text_of(const Tokenizer& tokenizer, std::optional<int32_t> token) {
  return token ? std::string(tokenizer.bytes(*token)) : std::string();
}

RenderOptions options_for(const Tokenizer& tokenizer, const std::string& variables, const std::string& tools) {
  RenderOptions options;
  options.tools = tools;
  options.begin_token = text_of(tokenizer, tokenizer.begin_token());
  options.end_token = text_of(tokenizer, tokenizer.end_token());
  options.extra = variables;
  return options;
}

}  // namespace

Prompt raw_prompt(const Tokenizer& tokenizer, const std::string& text) {
  Prompt prompt{tokenizer.encode(text)};
  const std::optional<int32_t> begin = tokenizer.begin_token();
  if (tokenizer.adds_begin() && begin && (prompt.tokens.empty() || prompt.tokens[0] != *begin))
    prompt.tokens.insert(prompt.tokens.begin(), *begin);
  return prompt;
}

std::string chat_text(const Tokenizer& tokenizer, const ChatTemplate& chat, std::span<const Message> messages, const std::string& variables,
                      const std::string& tools) {
  return chat.render(messages, options_for(tokenizer, variables, tools));
}

Prompt chat_prompt(const Tokenizer& tokenizer, const ChatTemplate& chat, std::span<const Message> messages, const std::string& variables,
                   const std::string& reply_start, const std::string& tools) {
  RenderOptions options = options_for(tokenizer, variables, tools);
  options.shield = [&](const std::string& text, const std::string& role) { return tokenizer.shield(text, role == "assistant"); };
  std::string text = chat.render(messages, options);
  if (!reply_start.empty() && prompt_opens_reasoning(text)) text += "</think>\n\n";  // it has got beyond that
  text += tokenizer.shield(reply_start, true);
  return {tokenizer.encode(text, Tokenizer::Added::shielded), prompt_opens_reasoning(text)};
}

std::string thinking_variables(const std::string& on_or_off) {
  if (on_or_off.empty()) return "";
  return on_or_off == "on" ? R"({"thinking": true, "enable_thinking": true})" : R"({"thinking": false, "enable_thinking": false})";
}

int32_t reasoning_end(const Tokenizer& tokenizer) {
  const std::optional<int32_t> token = tokenizer.find("</think>");
  if (!token) throw Error("this tokenizer has no token </think>: a reply that starts in reasoning cannot be constrained behind it");
  return *token;
}

std::vector<int32_t> end_tokens(const ModelConfig& config, const Tokenizer& tokenizer) {
  std::vector<int32_t> ends = config.end_tokens;
  const std::optional<int32_t> end = tokenizer.end_token();
  if (end && std::find(ends.begin(), ends.end(), *end) == ends.end()) ends.push_back(*end);
  return ends;
}

}  // namespace hadal
