// The tokenizer in a GGUF file's metadata. Source: ggml docs/gguf.md; the meaning of token_type is llama.h's llama_token_type.
#include "core/error.h"
#include "model/bpe.h"
#include "model/gguf.h"
#include "model/tokenizer_parts.h"

namespace hadal {

namespace {

enum TokenType : int64_t { normal = 1, unknown, control, user_defined, unused, byte };

std::optional<int32_t> token_id(const Gguf& file, const std::string& key, size_t count) {
  const int64_t id = file.integer(key, -1);
  if (id == -1 || id == UINT32_MAX) return std::nullopt;
  if (id < 0 || size_t(id) >= count) throw Error("{}: {} is {}; expected an id below {}", file.path().string(), key, id, count);
  return int32_t(id);
}

}  // namespace

Tokenizer Tokenizer::from_gguf(const Gguf& file) {
  const std::string path = file.path().string();
  const std::string* model = file.text("tokenizer.ggml.model");
  if (model == nullptr) throw Error("{}: tokenizer.ggml.model is absent; expected gpt2", path);
  if (*model != "gpt2") throw Error("{}: tokenizer.ggml.model is {}; expected gpt2", path, *model);
  const auto* tokens = file.texts("tokenizer.ggml.tokens");
  const auto* merges = file.texts("tokenizer.ggml.merges");
  const auto* types = file.integers("tokenizer.ggml.token_type");
  if (tokens == nullptr) throw Error("{}: tokenizer.ggml.tokens is absent", path);
  if (merges == nullptr) throw Error("{}: tokenizer.ggml.merges is absent", path);
  if (int64_t(tokens->size()) > most_tokens)
    throw Error("{}: tokenizer.ggml.tokens has {} strings; at most {} expected", path, tokens->size(), most_tokens);
  if (types != nullptr && types->size() != tokens->size())
    throw Error("{}: tokenizer.ggml.token_type has {} values; expected {}, one for each token", path, types->size(), tokens->size());

  TokenizerParts parts;
  parts.written = *tokens;
  for (size_t i = 0; types != nullptr && i < types->size(); i++) {
    const int64_t type = (*types)[i];
    if (type == unused) parts.written[i].clear();
    if (type != control && type != user_defined) continue;
    parts.added.push_back({.id = int32_t(i), .text = (*tokens)[i], .special = type == control});
    // Written as one letter of the alphabet it would stand for a byte, which a literal character (deepseek-llm's "ø") does not.
    std::string bytes;
    if (bytes_of_written((*tokens)[i], bytes) && bytes.size() == 1) parts.written[i].clear();
  }
  for (size_t i = 0; i < merges->size(); i++) parts.merges.push_back(split_merge((*merges)[i], i, path + ": tokenizer.ggml.merges"));

  const std::string* name = file.text("tokenizer.ggml.pre");
  NamedPretokenizer named = named_pretokenizer(name == nullptr ? "default" : *name);
  parts.stages = std::move(named.stages);
  parts.nfc = named.nfc;
  parts.ignore_merges = named.ignore_merges;
  parts.begin = token_id(file, "tokenizer.ggml.bos_token_id", tokens->size());
  parts.end = token_id(file, "tokenizer.ggml.eos_token_id", tokens->size());
  parts.adds_begin = file.flag("tokenizer.ggml.add_bos_token", named.adds_begin && parts.begin);
  if (parts.adds_begin && !parts.begin)
    throw Error("{}: tokenizer.ggml.add_bos_token is set, but tokenizer.ggml.bos_token_id is absent", path);
  return Tokenizer(std::move(parts), path + ": tokenizer.ggml.tokens");
}

}  // namespace hadal
