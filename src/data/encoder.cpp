#include "data/encoder.h"

#include <algorithm>

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
  const Message message{"user", example.prompt(), {}, {}, {}, {}};
  return encode_prompt(std::span(&message, 1));
}

std::vector<int32_t> Encoder::encode_prompt(std::span<const Message> messages) const {
  if (!chat_) throw Error("{}: no chat template, and the data has questions", folder_);
  return chat_prompt(tokenizer_, *chat_, messages).tokens;
}

void Encoder::add_counted(const std::string& text, EncodedExample& encoded) const {
  for (const int32_t token : tokenizer_.encode(text, Tokenizer::Added::as_text)) encoded.tokens.push_back(token);
  encoded.tokens.push_back(end_token());
  encoded.weights.resize(encoded.tokens.size(), 1);
}

EncodedExample Encoder::encode(const Example& example) const {
  EncodedExample encoded;
  if (!example.is_question()) {
    if (const auto begin = tokenizer_.begin_token()) encoded.tokens.push_back(*begin);
    encoded.weights.assign(encoded.tokens.size(), 0);
    add_counted(example.text, encoded);
    return encoded;
  }
  std::vector<Message> messages;
  const auto add_turn = [&](const std::string& question, const std::string& answer) {
    messages.push_back({"user", question, {}, {}, {}, {}});
    std::vector<int32_t> prompt = encode_prompt(messages);
    const auto& told = encoded.tokens;
    if (prompt.size() < told.size() || !std::equal(told.begin(), told.end(), prompt.begin()))
      throw Error("{}: the chat template writes earlier turns anew when a talk goes on: expected examples with one question", folder_);
    encoded.tokens = std::move(prompt);
    encoded.weights.resize(encoded.tokens.size(), 0);
    add_counted(answer, encoded);
    messages.push_back({"assistant", answer, {}, {}, {}, {}});
  };
  add_turn(example.prompt(), example.answer);
  for (const Turn& turn : example.more) add_turn(turn.question, turn.answer);
  return encoded;
}

}  // namespace hadal
