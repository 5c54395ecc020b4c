// Examples as tokens, and which of them count in the loss.
#pragma once
#include <filesystem>
#include <optional>
#include <vector>

#include "data/source.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"

namespace hadal {

struct EncodedExample {
  std::vector<int32_t> tokens;   // begin token, text, end token; or the prompt as the chat template writes it, answer, end token
  std::vector<uint8_t> weights;  // of each token: 1 where its prediction counts. Never the begin token
};

class Encoder {
 public:
  // tokenizer.json and what may lie beside it: tokenizer_config.json, chat_template.jinja. Error: no end token.
  explicit Encoder(const std::filesystem::path& folder);
  EncodedExample encode(const Example& example) const;  // Error: a question, and no chat template
  std::vector<int32_t> encode_prompt(const Example& example) const;
  const Tokenizer& tokenizer() const { return tokenizer_; }
  int32_t end_token() const { return *tokenizer_.end_token(); }
  uint64_t hash() const { return hash_; }  // of the files

 private:
  Tokenizer tokenizer_;
  std::optional<ChatTemplate> chat_;
  std::string folder_;
  uint64_t hash_ = 0;
};

}  // namespace hadal
