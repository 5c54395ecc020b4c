// Greedy merging: a heap of pairs by how often they come, and for each pair the words that may have it.
#include <algorithm>
#include <optional>
#include <queue>
#include <unordered_map>

#include "data/train_tokenizer.h"

namespace hadal {
namespace {

uint64_t key_of(int32_t left, int32_t right) { return uint64_t(uint32_t(left)) << 32 | uint32_t(right); }

struct Pair {
  int64_t count = 0;
  std::vector<int32_t> words;  // that had it once: looked at again when the pair is merged
};

struct Candidate {
  int64_t count;
  uint64_t key;
  bool operator<(const Candidate& other) const { return count != other.count ? count < other.count : key > other.key; }
};

class Learner {
 public:
  explicit Learner(const std::vector<std::pair<std::string, int64_t>>& words) {
    for (int byte = 0; byte < 256; ++byte) piece_of(std::string(1, char(byte)));
    for (const auto& [text, count] : words) {
      std::vector<int32_t> pieces;
      for (const char byte : text) pieces.push_back(uint8_t(byte));
      words_.push_back({std::move(pieces), count});
    }
    for (size_t w = 0; w < words_.size(); ++w) count_pairs(int32_t(w), 1);
    for (const auto& [key, pair] : pairs_) heap_.push({pair.count, key});
  }

  int64_t pieces() const { return int64_t(bytes_.size()); }

  // The pair that comes most often becomes a piece; empty when no pair comes twice.
  std::optional<LearntMerge> merge() {
    while (!heap_.empty()) {
      const Candidate best = heap_.top();
      heap_.pop();
      if (pairs_[best.key].count != best.count) continue;  // it has changed since; a newer candidate is in the heap
      if (best.count < 2) return {};
      LearntMerge merge{int32_t(best.key >> 32), int32_t(best.key & 0xffffffff), 0};
      merge.made = piece_of(bytes_[size_t(merge.left)] + bytes_[size_t(merge.right)]);
      replace(best.key, merge);
      return merge;
    }
    return {};
  }

 private:
  struct Word {
    std::vector<int32_t> pieces;
    int64_t count;
  };

  int32_t piece_of(const std::string& bytes) {
    const auto [found, is_new] = pieces_.emplace(bytes, int32_t(bytes_.size()));
    if (is_new) bytes_.push_back(bytes);
    return found->second;
  }
  void count_pairs(int32_t w, int sign) {
    const Word& word = words_[size_t(w)];
    for (size_t i = 0; i + 1 < word.pieces.size(); ++i) {
      const uint64_t key = key_of(word.pieces[i], word.pieces[i + 1]);
      Pair& pair = pairs_[key];
      pair.count += sign * word.count;
      if (sign > 0 && (pair.words.empty() || pair.words.back() != w)) pair.words.push_back(w);
      changed_.push_back(key);
    }
  }
  void replace(uint64_t key, const LearntMerge& merge) {
    changed_.clear();
    std::vector<int32_t> words = std::move(pairs_[key].words);
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    for (const int32_t w : words) {
      std::vector<int32_t>& pieces = words_[size_t(w)].pieces;
      count_pairs(w, -1);
      size_t kept = 0;
      for (size_t i = 0; i < pieces.size(); ++i) {
        const bool here = i + 1 < pieces.size() && pieces[i] == merge.left && pieces[i + 1] == merge.right;
        pieces[kept++] = here ? merge.made : pieces[i];
        i += here;
      }
      pieces.resize(kept);
      count_pairs(w, 1);
    }
    pairs_.erase(key);
    std::sort(changed_.begin(), changed_.end());
    changed_.erase(std::unique(changed_.begin(), changed_.end()), changed_.end());
    for (const uint64_t other : changed_)
      if (const auto found = pairs_.find(other); found != pairs_.end() && found->second.count > 0) heap_.push({found->second.count, other});
  }

  std::vector<std::string> bytes_;                   // of each piece
  std::unordered_map<std::string, int32_t> pieces_;  // the other way round
  std::vector<Word> words_;
  std::unordered_map<uint64_t, Pair> pairs_;
  std::priority_queue<Candidate> heap_;
  std::vector<uint64_t> changed_;
};

}  // namespace

std::vector<LearntMerge> learn_merges(const std::vector<std::pair<std::string, int64_t>>& words, int64_t pieces,
                                      const std::function<void(int64_t pieces, int64_t all)>& progress) {
  Learner learner(words);
  std::vector<LearntMerge> merges;
  while (learner.pieces() < pieces) {
    const std::optional<LearntMerge> merge = learner.merge();
    if (!merge) break;
    merges.push_back(*merge);
    if (progress && merges.size() % 256 == 0) progress(learner.pieces(), pieces);
  }
  return merges;
}

}  // namespace hadal
