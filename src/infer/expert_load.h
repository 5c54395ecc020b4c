// How much each expert of a mixture has had to do: counted by the passes of every engine that shares the model, read from any thread.
#pragma once
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

namespace hadal {

class ExpertLoad {
 public:
  ExpertLoad(int64_t layers, int64_t experts) : layers_(layers), experts_(experts), rows_(size_t(layers * experts)) {}
  void count(int64_t layer, std::span<const int32_t> experts) {  // of each row those that it was sent to
    if (layer >= layers_) return;                                // a draft's
    for (const int32_t e : experts) rows_[size_t(layer * experts_ + e)].fetch_add(1, std::memory_order_relaxed);
  }
  int64_t rows(int64_t layer, int64_t expert) const { return rows_[size_t(layer * experts_ + expert)].load(std::memory_order_relaxed); }
  int64_t layers() const { return layers_; }
  int64_t experts() const { return experts_; }

 private:
  const int64_t layers_, experts_;
  std::vector<std::atomic<int64_t>> rows_;
};

}  // namespace hadal
