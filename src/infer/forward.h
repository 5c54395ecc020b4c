// The forward pass. Start reading at forward() in forward.cpp.
#pragma once
#include <memory>
#include <span>

#include "core/mat.h"
#include "infer/kv_cache.h"
#include "infer/model.h"
#include "infer/profile.h"

namespace hadal {

struct Adapter;

struct Segment {  // consecutive tokens of one sequence: many rows of a prompt, or one of a reply
  KvRows* kv;     // reserved for position + rows
  int64_t first_row, rows, position;
  const Adapter* adapter = nullptr;  // of the model; null: none
};

struct Batch {                        // everything one forward pass needs to know; prefill and decode rows mix freely
  std::span<const int32_t> tokens;    // one per row
  std::span<const Segment> segments;  // cover the rows in order
  std::span<const int32_t> wanted;    // rows whose logits are wanted
};

class Scratch {  // activations of at most max_rows rows, allocated once
 public:
  Scratch(const ModelConfig& config, int64_t max_rows, int64_t max_wanted);
  ~Scratch();
  struct Buffers;
  Buffers& operator*() const { return *buffers_; }

 private:
  std::unique_ptr<Buffers> buffers_;
};

// Appends the batch's keys and values to `kv`; returns logits [wanted, vocab], valid until the next call.
// profile: counts where the time goes; null: nothing is counted.
Mat<float> forward(const Model& model, const Batch& batch, KvCache& kv, Scratch& scratch, Profile* profile = nullptr);

// What left the last layer for `rows` rows of the pass before, behind the final norm [rows, dim]; valid until the next call of either.
Mat<float> normed(const Model& model, Scratch& scratch, int64_t first_row, int64_t rows);

}  // namespace hadal
