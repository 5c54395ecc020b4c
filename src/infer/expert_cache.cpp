#include "infer/expert_cache.h"

#include <cmath>
#include <limits>

#include "core/error.h"

namespace hadal {

ExpertCache::ExpertCache(int64_t layers, int64_t experts, int64_t slots, Eviction eviction)
    : layers_(layers),
      experts_(experts),
      eviction_(eviction),
      slots_(size_t(slots)),
      slot_of_(size_t(layers * experts), -1),
      heat_(size_t(layers * experts)),
      last_use_(size_t(layers * experts)) {}

// Uses halve in weight each time as many experts have been used as the cache has slots, eight times over.
double ExpertCache::heat(int64_t layer, int32_t expert) const {
  const size_t at = size_t(layer * experts_ + expert);
  return heat_[at] * std::exp2(-double(now_ - last_use_[at]) / (8 * double(slots_.size())));
}

void ExpertCache::use(int64_t layer, int32_t expert) {
  const size_t at = size_t(layer * experts_ + expert);
  ++now_;
  layer_now_ = layer;
  heat_[at] = heat(layer, expert) + 1;
  last_use_[at] = now_;
  if (slot_of_[at] >= 0) slots_[size_t(slot_of_[at])].last_use = now_;
}

double ExpertCache::rank(const Slot& slot) const {
  if (eviction_ == Eviction::lru) return double(slot.last_use);
  const double warmth = heat(slot.layer, slot.expert);
  if (eviction_ == Eviction::lfu) return warmth;
  const int64_t ahead = (slot.layer - layer_now_ + layers_ - 1) % layers_;  // layers until it may be needed
  return warmth / (1 + warmth) - double(ahead);
}

int32_t ExpertCache::place(int64_t layer, int32_t expert) {
  int32_t chosen = -1;
  if (next_free_ < int32_t(slots_.size())) {
    chosen = next_free_++;
  } else {
    double lowest = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < slots_.size(); ++i) {
      if (slots_[i].pins > 0) continue;
      const double r = slots_[i].layer < 0 ? -std::numeric_limits<double>::infinity() : rank(slots_[i]);
      if (chosen >= 0 && r >= lowest) continue;
      chosen = int32_t(i);
      lowest = r;
    }
    if (chosen < 0) return -1;
    if (slots_[size_t(chosen)].layer >= 0) forget(chosen);
  }
  slots_[size_t(chosen)] = {layer, expert, 0, now_};
  slot_of_[size_t(layer * experts_ + expert)] = chosen;
  return chosen;
}

void ExpertCache::forget(int32_t slot) {
  Slot& s = slots_[size_t(slot)];
  CHECK(s.layer >= 0);
  slot_of_[size_t(s.layer * experts_ + s.expert)] = -1;
  s = {};
}

}  // namespace hadal
