// Byte-level byte pair encoding: which bytes a token stands for, and how a piece of text becomes tokens.
// Source: Sennrich et al. 2016; the alphabet of bytes written as characters is GPT-2's (encoder.py, bytes_to_unicode).
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

// The bytes that a token written in GPT-2's alphabet stands for. False when a character is not in the alphabet.
bool bytes_of_written(std::string_view written, std::string& bytes);
std::string written_of_bytes(std::string_view bytes);

class TextIndex {  // text -> number, in one block of memory
 public:
  explicit TextIndex(size_t expected = 0);
  bool insert(std::string_view text, int32_t number);  // false, and nothing changes, when the text is there already
  int32_t find(std::string_view text) const;           // -1 when absent

 private:
  struct Slot {
    uint32_t hash, length;
    size_t offset;
    int32_t number;
  };
  size_t slot_of(std::string_view text, uint32_t hash) const;
  void grow();
  std::vector<Slot> slots_;
  std::string texts_;
  size_t count_ = 0;
};

uint64_t hash_of(std::string_view text);

class Bpe {
 public:
  struct Scratch {  // of one thread
    std::vector<int32_t> symbols, next, previous;
    std::vector<uint64_t> heap;
  };

  // written: by token, in GPT-2's alphabet; empty for an id without a string. merges: by rank, two written pieces.
  // Error: names `where`, when a string comes twice or a merge is of pieces that are not there.
  Bpe(const std::vector<std::string>& written, const std::vector<std::pair<std::string_view, std::string_view>>& merges, bool ignore_merges,
      const std::string& where);

  int32_t size() const { return int32_t(offsets_.size()) - 1; }
  std::string_view bytes(int32_t token) const {
    return std::string_view(bytes_).substr(offsets_[size_t(token)], offsets_[size_t(token) + 1] - offsets_[size_t(token)]);
  }
  int32_t find(std::string_view bytes) const { return by_bytes_.find(bytes); }  // -1 when no token is that text
  bool has_byte(uint8_t byte) const { return byte_tokens_[byte] >= 0; }

  // Appends the tokens of one piece. Bytes that are no token by themselves are left out, as `tokenizers` does without unk_token.
  // n log n in the length of the piece.
  void encode(std::string_view piece, std::vector<int32_t>& tokens, Scratch& scratch) const;

 private:
  struct Merge {
    uint32_t left, right, rank;
    int32_t token;
  };
  void add_merge(uint32_t left, uint32_t right, uint32_t rank, int32_t token);
  const Merge* merge_of(int32_t left, int32_t right) const;  // null when the two do not merge
  void merge_short(std::vector<int32_t>& symbols, size_t first) const;
  void merge_long(Scratch& scratch) const;

  std::string bytes_;            // of all tokens, one after the other
  std::vector<size_t> offsets_;  // [size + 1]
  TextIndex by_bytes_;
  std::array<int32_t, 256> byte_tokens_;  // -1: the byte is no token
  std::vector<Merge> merges_;             // hashed by the pair
  std::vector<int32_t> token_of_rank_;
  bool ignore_merges_;
};

}  // namespace hadal
