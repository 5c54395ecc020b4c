#include "data/encoder.h"

#include "core/error.h"
#include "core/files.h"
#include "core/random.h"
#include "model/prompt.h"

namespace hadal {

namespace fs = std::filesystem;

static std::optional<ChatTemplate> chat_template_of(const fs::path& folder) {
  if (const fs::path own = folder / "chat_template.jinja"; fs::exists(own)) return ChatTemplate::parse(read_text(own), own.string());
  if (fs::exists(folder / "config.json")) return ModelSource(folder).chat_template();
  return {};
}

Encoder::Encoder(const fs::path& folder)
    : tokenizer_(Tokenizer::from_folder(folder)), chat_(chat_template_of(folder)), folder_(folder.string()) {
  if (!tokenizer_.end_token()) throw Error("{}: the tokenizer has no end token (eos_token in tokenizer_config.json)", folder_);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"})
    hash_ = hash_bytes(fs::exists(folder / name) ? read_text(folder / name) : std::string(), hash_);
}

std::vector<int32_t> Encoder::encode_prompt(const Example& example) const {
  if (!chat_) throw Error("{}: no chat template, and the data has questions", folder_);
  const Message message{"user", example.prompt(), {}, {}, {}, {}};
  return chat_prompt(tokenizer_, *chat_, {&message, 1}).tokens;
}

EncodedExample Encoder::encode(const Example& example) const {
  EncodedExample encoded;
  if (example.is_question()) {
    encoded.tokens = encode_prompt(example);
  } else if (const auto begin = tokenizer_.begin_token()) {
    encoded.tokens.push_back(*begin);
  }
  encoded.weights.assign(encoded.tokens.size(), 0);
  const std::string& counted = example.is_question() ? example.answer : example.text;
  for (const int32_t token : tokenizer_.encode(counted, Tokenizer::Added::as_text)) encoded.tokens.push_back(token);
  encoded.tokens.push_back(end_token());
  encoded.weights.resize(encoded.tokens.size(), 1);
  return encoded;
}

}  // namespace hadal
