// Examples as tokens, and which of them count in the loss.
#pragma once
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "data/source.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"

namespace hadal {

struct EncodedExample {
  std::vector<int32_t> tokens;   // begin token, text, end token; or each prompt as the chat template writes it, answer, end token
  std::vector<uint8_t> weights;  // of each token: 1 where its prediction counts. Never the begin token
};

class Encoder {
 public:
  // tokenizer.json and what may lie beside it: tokenizer_config.json, chat_template.jinja. Error: no end token.
  explicit Encoder(const std::filesystem::path& folder);
  // Error: a question, and no chat template; several, and a template that writes earlier ones anew.
  EncodedExample encode(const Example& example) const;
  std::vector<int32_t> encode_prompt(const Example& example) const;
  const Tokenizer& tokenizer() const { return tokenizer_; }
  int32_t end_token() const { return *tokenizer_.end_token(); }
  uint64_t hash() const { return hash_; }  // of the files

 private:
  std::vector<int32_t> encode_prompt(std::span<const Message> messages) const;
  void add_counted(const std::string& text, EncodedExample& encoded) const;
  Tokenizer tokenizer_;
  std::optional<ChatTemplate> chat_;
  std::string folder_;
  uint64_t hash_ = 0;
};

}  // namespace hadal
