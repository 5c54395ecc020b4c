// Which experts of a model are in memory when not all of them fit, and which has to go when another comes. It knows no bytes and no disk,
// so that recorded routes can be replayed through it (bench/experts).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace hadal {

// What goes first. lru: used longest ago. lfu: used least often, old uses counting less and less. least_stale: of the layers that the
// current pass has behind it, the one just left, as it is needed last; among its experts the least often used.
enum class Eviction { lru, lfu, least_stale };

class ExpertCache {
 public:
  ExpertCache(int64_t layers, int64_t experts, int64_t slots, Eviction eviction);

  int32_t find(int64_t layer, int32_t expert) const { return slot_of_[size_t(layer * experts_ + expert)]; }  // -1: not in memory
  void use(int64_t layer, int32_t expert);                                                                   // counts for the eviction
  // A slot for an expert that has none: a free one or that of the expert to go; -1 when all are pinned. Its place is the expert's at once.
  int32_t place(int64_t layer, int32_t expert);
  void pin(int32_t slot) { ++slots_[size_t(slot)].pins; }  // may not go; pins are counted
  void unpin(int32_t slot) { --slots_[size_t(slot)].pins; }
  void forget(int32_t slot);  // the expert's bytes did not come
  int64_t slots() const { return int64_t(slots_.size()); }

 private:
  struct Slot {
    int64_t layer = -1;  // -1: free
    int32_t expert = -1;
    int32_t pins = 0;
    int64_t last_use = 0;
  };
  double rank(const Slot& slot) const;  // the lowest goes
  double heat(int64_t layer, int32_t expert) const;

  int64_t layers_, experts_;
  Eviction eviction_;
  int64_t now_ = 0, layer_now_ = 0;  // in uses; the layer of the last one
  std::vector<Slot> slots_;
  std::vector<int32_t> slot_of_;   // [layers, experts]
  std::vector<double> heat_;       // [layers, experts], as of the last use
  std::vector<int64_t> last_use_;  // [layers, experts]
  int32_t next_free_ = 0;
};

}  // namespace hadal
