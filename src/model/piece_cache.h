// The tokens of pieces met before, for the length of one call: words repeat, and a piece's tokens depend on nothing but the piece.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

class PieceCache {  // at most 4 MiB; starts anew when full
 public:
  static constexpr size_t longest = 48;  // bytes of a piece worth keeping

  // Of a piece that reached `stage`. False when it is not there.
  bool append(uint32_t stage, std::string_view piece, std::vector<int32_t>& tokens) const;
  void insert(uint32_t stage, std::string_view piece, std::span<const int32_t> tokens);

 private:
  struct Slot {
    uint64_t hash = 0;  // 0: free
    uint32_t text = 0, first_token = 0;
    uint8_t length = 0, stage = 0;
    uint16_t tokens = 0;
  };
  size_t slot_of(uint64_t hash, uint32_t stage, std::string_view piece) const;
  void grow();
  std::vector<Slot> slots_;
  std::string texts_;
  std::vector<int32_t> tokens_;
  size_t count_ = 0;
};

}  // namespace hadal
