// Merging lowest rank first, leftmost first among equals: by looking over short pieces, with a heap over a linked list for long ones.
#include "model/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>

#include "core/error.h"
#include "model/unicode.h"

namespace hadal {

namespace {

constexpr uint32_t no_rank = UINT32_MAX;
constexpr size_t short_piece = 48;  // bytes; below it a scan per merge is faster than the heap

// Printable Latin-1 characters stand for themselves, the other 68 bytes for U+0100 and up, in order.
struct Alphabet {
  std::array<int16_t, 0x144> byte;
  constexpr Alphabet() : byte{} {
    byte.fill(-1);
    int16_t next = 0x100;
    for (int16_t b = 0; b < 256; b++) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      byte[size_t(printable ? b : next++)] = b;
    }
  }
};
constexpr Alphabet alphabet;

}  // namespace

bool bytes_of_written(std::string_view written, std::string& bytes) {
  bytes.clear();
  while (!written.empty()) {
    const Utf8Step step = utf8_step(written);
    if (step.kind != Utf8Step::whole || step.point >= alphabet.byte.size() || alphabet.byte[step.point] < 0) return false;
    bytes += char(alphabet.byte[step.point]);
    written.remove_prefix(step.bytes);
  }
  return true;
}

std::string written_of_bytes(std::string_view bytes) {
  std::string written;
  for (const char byte : bytes)
    append_utf8(uint32_t(std::find(alphabet.byte.begin(), alphabet.byte.end(), int16_t(uint8_t(byte))) - alphabet.byte.begin()), written);
  return written;
}

uint64_t hash_of(std::string_view text) {
  constexpr uint64_t odd = 0x9e3779b97f4a7c15;
  uint64_t hash = text.size() * odd;
  const auto mix = [&](uint64_t word) {
    const auto product = static_cast<unsigned __int128>(hash ^ word) * odd;
    hash = uint64_t(product) ^ uint64_t(product >> 64);
  };
  for (; text.size() >= 8; text.remove_prefix(8)) {
    uint64_t word;
    std::memcpy(&word, text.data(), 8);
    mix(word);
  }
  uint64_t rest = 0;
  if (!text.empty()) std::memcpy(&rest, text.data(), text.size());
  mix(rest);
  return hash;
}

TextIndex::TextIndex(size_t expected) : slots_(std::bit_ceil(expected * 2 + 2), Slot{0, 0, 0, -1}) {}

size_t TextIndex::slot_of(std::string_view text, uint32_t hash) const {
  size_t at = hash & (slots_.size() - 1);
  for (; slots_[at].number >= 0; at = (at + 1) & (slots_.size() - 1)) {
    const Slot& slot = slots_[at];
    if (slot.hash == hash && slot.length == text.size() && std::string_view(texts_).substr(slot.offset, slot.length) == text) break;
  }
  return at;
}

void TextIndex::grow() {
  std::vector<Slot> old(slots_.size() * 2, Slot{0, 0, 0, -1});
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.number < 0) continue;
    size_t at = slot.hash & (slots_.size() - 1);
    while (slots_[at].number >= 0) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = slot;
  }
}

bool TextIndex::insert(std::string_view text, int32_t number) {
  if (count_ * 2 >= slots_.size()) grow();
  const uint32_t hash = uint32_t(hash_of(text));
  Slot& slot = slots_[slot_of(text, hash)];
  if (slot.number >= 0) return false;
  slot = {hash, uint32_t(text.size()), texts_.size(), number};
  texts_ += text;
  count_++;
  return true;
}

int32_t TextIndex::find(std::string_view text) const { return slots_[slot_of(text, uint32_t(hash_of(text)))].number; }

Bpe::Bpe(const std::vector<std::string>& written, const std::vector<std::pair<std::string_view, std::string_view>>& merges,
         bool ignore_merges, const std::string& where)
    : by_bytes_(written.size()), merges_(std::bit_ceil(merges.size() * 2 + 2), Merge{0, 0, no_rank, -1}), ignore_merges_(ignore_merges) {
  TextIndex by_written(written.size());
  byte_tokens_.fill(-1);
  std::string bytes;
  for (size_t i = 0; i < written.size(); i++) {
    const int32_t token = int32_t(i);
    offsets_.push_back(bytes_.size());
    if (written[i].empty()) continue;
    if (!by_written.insert(written[i], token))
      throw Error("{}: the piece \"{}\" comes twice, as {} and {}", where, written[i], by_written.find(written[i]), i);
    const bool in_alphabet = bytes_of_written(written[i], bytes);
    if (in_alphabet) by_bytes_.insert(bytes, token);
    if (in_alphabet && bytes.size() == 1) byte_tokens_[uint8_t(bytes[0])] = token;
    bytes_ += in_alphabet ? bytes : written[i];
  }
  offsets_.push_back(bytes_.size());

  std::string joined;
  token_of_rank_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); rank++) {
    const auto& [left, right] = merges[rank];
    joined.assign(left).append(right);
    const int32_t l = by_written.find(left), r = by_written.find(right), token = by_written.find(joined);
    if (l < 0 || r < 0 || token < 0)
      throw Error("{}: merge {} joins \"{}\" and \"{}\", but \"{}\" is not in the vocabulary", where, rank, left, right,
                  l < 0   ? left
                  : r < 0 ? right
                          : joined);
    token_of_rank_.push_back(token);
    add_merge(uint32_t(l), uint32_t(r), uint32_t(rank), token);
  }
}

static size_t slot_of_pair(uint32_t left, uint32_t right, size_t slots) {
  const uint64_t key = (uint64_t(left) << 32 | right) * 0x9e3779b97f4a7c15;
  return size_t(key >> 32) & (slots - 1);
}

void Bpe::add_merge(uint32_t left, uint32_t right, uint32_t rank, int32_t token) {
  size_t at = slot_of_pair(left, right, merges_.size());
  while (merges_[at].rank != no_rank && (merges_[at].left != left || merges_[at].right != right)) at = (at + 1) & (merges_.size() - 1);
  merges_[at] = {left, right, rank, token};  // of a pair that comes twice the last rank holds, as in `tokenizers`
}

const Bpe::Merge* Bpe::merge_of(int32_t left, int32_t right) const {
  size_t at = slot_of_pair(uint32_t(left), uint32_t(right), merges_.size());
  while (merges_[at].rank != no_rank) {
    if (merges_[at].left == uint32_t(left) && merges_[at].right == uint32_t(right)) return &merges_[at];
    at = (at + 1) & (merges_.size() - 1);
  }
  return nullptr;
}

void Bpe::encode(std::string_view piece, std::vector<int32_t>& tokens, Scratch& scratch) const {
  if (ignore_merges_) {
    if (const int32_t whole = by_bytes_.find(piece); whole >= 0) {
      tokens.push_back(whole);
      return;
    }
  }
  if (piece.size() >= size_t(INT32_MAX)) throw Error("a piece of {} bytes without a place to cut; less than 2 GiB expected", piece.size());
  std::vector<int32_t>& symbols = piece.size() <= short_piece ? tokens : scratch.symbols;
  if (&symbols != &tokens) symbols.clear();
  const size_t first = symbols.size();
  for (const char c : piece)
    if (const int32_t token = byte_tokens_[uint8_t(c)]; token >= 0) symbols.push_back(token);
  if (&symbols == &tokens) return merge_short(tokens, first);
  merge_long(scratch);
  tokens.insert(tokens.end(), symbols.begin(), symbols.end());
}

void Bpe::merge_short(std::vector<int32_t>& symbols, size_t first) const {
  uint32_t ranks[short_piece];  // of the pair that begins at each symbol
  int32_t* s = symbols.data() + first;
  size_t n = symbols.size() - first;
  const auto rank_at = [&](size_t i) {
    const Merge* merge = merge_of(s[i], s[i + 1]);
    return merge == nullptr ? no_rank : merge->rank;
  };
  for (size_t i = 0; i + 1 < n; i++) ranks[i] = rank_at(i);
  while (n > 1) {
    const size_t best = size_t(std::min_element(ranks, ranks + n - 1) - ranks);
    if (ranks[best] == no_rank) break;
    s[best] = token_of_rank_[ranks[best]];
    std::memmove(s + best + 1, s + best + 2, (n - best - 2) * sizeof *s);
    if (n > best + 2) std::memmove(ranks + best + 1, ranks + best + 2, (n - best - 3) * sizeof *ranks);
    n--;
    if (best + 1 < n) ranks[best] = rank_at(best);
    if (best > 0) ranks[best - 1] = rank_at(best - 1);
  }
  symbols.resize(first + n);
}

void Bpe::merge_long(Scratch& scratch) const {
  // Named one by one, as clang 14 lets no lambda capture a structured binding.
  std::vector<int32_t>&symbols = scratch.symbols, &next = scratch.next, &previous = scratch.previous;
  std::vector<uint64_t>& heap = scratch.heap;  // orders rank << 32 | position; entries that no longer hold are skipped
  const int32_t n = int32_t(symbols.size());
  next.resize(symbols.size());
  previous.resize(symbols.size());
  heap.clear();
  const auto entry = [&](int32_t left, int32_t right, auto&& add) {
    if (const Merge* merge = merge_of(symbols[size_t(left)], symbols[size_t(right)])) add(uint64_t(merge->rank) << 32 | uint32_t(left));
  };
  const auto push = [&](uint64_t e) {
    heap.push_back(e);
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  for (int32_t i = 0; i < n; i++) {
    next[size_t(i)] = i + 1;
    previous[size_t(i)] = i - 1;
    if (i + 1 < n) entry(i, i + 1, [&](uint64_t e) { heap.push_back(e); });
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    const uint64_t top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    const int32_t left = int32_t(uint32_t(top));
    if (symbols[size_t(left)] < 0 || next[size_t(left)] >= n) continue;
    const int32_t right = next[size_t(left)];
    const Merge* merge = merge_of(symbols[size_t(left)], symbols[size_t(right)]);
    if (merge == nullptr || merge->rank != top >> 32) continue;
    symbols[size_t(left)] = merge->token;
    symbols[size_t(right)] = -1;
    const int32_t after = next[size_t(right)];
    next[size_t(left)] = after;
    if (after < n) {
      previous[size_t(after)] = left;
      entry(left, after, push);
    }
    if (previous[size_t(left)] >= 0) entry(previous[size_t(left)], left, push);
  }
  std::erase(symbols, -1);
}

}  // namespace hadal
