// Open addressing over two blocks, one of texts and one of tokens.
#include "model/piece_cache.h"

#include "model/bpe.h"

namespace hadal {

namespace {

constexpr size_t first_slots = 256, most_slots = 1 << 16, most_bytes = 1 << 20, most_tokens = 1 << 18;

uint64_t key_of(uint32_t stage, std::string_view piece) { return (hash_of(piece) + stage * 0x9e3779b97f4a7c15) | 1; }

}  // namespace

size_t PieceCache::slot_of(uint64_t hash, uint32_t stage, std::string_view piece) const {
  size_t at = (hash >> 8) & (slots_.size() - 1);
  for (; slots_[at].hash != 0; at = (at + 1) & (slots_.size() - 1)) {
    const Slot& slot = slots_[at];
    if (slot.hash == hash && slot.stage == stage && std::string_view(texts_.data() + slot.text, slot.length) == piece) break;
  }
  return at;
}

bool PieceCache::append(uint32_t stage, std::string_view piece, std::vector<int32_t>& tokens) const {
  if (slots_.empty()) return false;
  const Slot& slot = slots_[slot_of(key_of(stage, piece), stage, piece)];
  if (slot.hash == 0) return false;
  const int32_t* first = tokens_.data() + slot.first_token;
  if (slot.tokens == 1)
    tokens.push_back(*first);
  else
    tokens.insert(tokens.end(), first, first + slot.tokens);
  return true;
}

void PieceCache::insert(uint32_t stage, std::string_view piece, std::span<const int32_t> tokens) {
  if (texts_.size() + piece.size() > most_bytes || tokens_.size() + tokens.size() > most_tokens || count_ * 2 >= most_slots) *this = {};
  if (count_ * 2 >= slots_.size()) grow();
  const uint64_t hash = key_of(stage, piece);
  Slot& slot = slots_[slot_of(hash, stage, piece)];
  if (slot.hash != 0) return;
  slot = {hash, uint32_t(texts_.size()), uint32_t(tokens_.size()), uint8_t(piece.size()), uint8_t(stage), uint16_t(tokens.size())};
  texts_ += piece;
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  count_++;
}

void PieceCache::grow() {
  std::vector<Slot> old(slots_.empty() ? first_slots : slots_.size() * 2);
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.hash == 0) continue;
    size_t at = (slot.hash >> 8) & (slots_.size() - 1);
    while (slots_[at].hash != 0) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = slot;
  }
}

}  // namespace hadal
