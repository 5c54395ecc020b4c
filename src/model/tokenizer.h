// Byte-level BPE, from tokenizer.json or from GGUF metadata. Immutable, shared by all threads.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

class Gguf;
struct TokenizerParts;

class Tokenizer {
 public:
  // tokenizer.json and, if there, tokenizer_config.json (add_bos_token, bos_token, eos_token). Error names the file and the key.
  static Tokenizer from_folder(const std::filesystem::path& folder);
  static Tokenizer from_json(const std::string& tokenizer_json, const std::string& tokenizer_config, const std::string& where);
  static Tokenizer from_gguf(const Gguf& file);
  Tokenizer(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Whether special tokens written out in the text become those tokens (others always do). shielded: as match, but for what shield() has
  // treated.
  enum class Added { match, as_text, shielded };
  std::vector<int32_t> encode(std::string_view text, Added added = Added::match) const;  // any bytes; never adds a begin token
  // `text` with a mark in every control token that is written out in it: special ones, and those in angle brackets. Between other texts,
  // encoded as shielded, it makes the tokens that its letters make, never a control token. keep_thinking: but for <think> and </think>.
  std::string shield(std::string_view text, bool keep_thinking = false) const;
  std::string_view bytes(int32_t token) const;  // may end inside a UTF-8 character (see Utf8Stream); empty for an id without a string
  std::string decode(const std::vector<int32_t>& tokens) const;
  bool is_special(int32_t token) const;                       // a control token that a reader does not want to see
  int32_t size() const;                                       // ids are in [0, size)
  std::optional<int32_t> find(std::string_view piece) const;  // a whole token by its text, added tokens first
  bool adds_begin() const;                                    // a raw text starts with begin_token()
  std::optional<int32_t> begin_token() const, end_token() const;

 private:
  struct Tables;
  class Encoder;
  Tokenizer(TokenizerParts parts, const std::string& where);
  std::unique_ptr<const Tables> tables_;
};

class Utf8Stream {  // bytes in, whole characters out; invalid bytes become U+FFFD as Python's errors="replace" has it
 public:
  std::string push(std::string_view bytes);
  std::string finish();  // what is left, replaced

 private:
  std::string held_;
};

}  // namespace hadal
