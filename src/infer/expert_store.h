// Routed experts of a model larger than memory. A fixed number of slots holds experts; what is missing is read from the checkpoint past
// the page cache, those asked for now before those that the next layer will probably ask for. An expert is what lies between its first and
// last byte in one file: gate, up and down, with scales, must follow each other there, as `hadal quantize` writes them.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/disk_reader.h"
#include "infer/expert_cache.h"
#include "infer/model.h"
#include "ops/ops.h"

namespace hadal {

struct ExpertCounts {          // since the store was made
  int64_t used = 0, hits = 0;  // experts asked for; those that were in memory or on their way
  int64_t foreseen = 0;        // hits that only the look-ahead brought
  int64_t bytes_read = 0;
  double seconds_reading = 0, seconds_waited = 0;  // disk at work; computation at rest for want of an expert
};

class ExpertStore {
 public:
  // arena_bytes: of all slots. Error: too few for one row's experts, saying how many it takes; experts that do not lie together.
  ExpertStore(const Model& model, int64_t arena_bytes, Eviction eviction = Eviction::least_stale,
              DiskReader::Path path = DiskReader::Path::uring);
  ~ExpertStore();
  ExpertSource& layer(int64_t layer);                             // one pass at a time. next() throws Error when a read failed
  void foresee(int64_t layer, std::span<const int32_t> experts);  // reads them while nothing urgent is to be read
  int64_t slots() const;
  ExpertCounts counts() const;

  static int64_t slot_bytes(const Model& model);  // one expert, with what alignment adds

 private:
  struct State;
  std::unique_ptr<State> state_;
};

int64_t routed_expert_bytes(const Model& model);  // all of them

}  // namespace hadal
