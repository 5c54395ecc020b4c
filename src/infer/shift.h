// When a context is full: the oldest rows are forgotten, what follows them moves up.
#pragma once
#include <cstdint>

#include "infer/kv_cache.h"
#include "infer/model.h"

namespace hadal {

// Takes `count` pages out of a sequence, from page `first` on. The rows behind them stand `count` pages earlier from then on: their keys'
// rotated parts, all that depends on a position, are turned back by as much; values and latents stay as they are. An int8 key is rounded
// once more. count <= kv.most_droppable(sequence.length, first). The rows keep what they had read of those that are gone.
void shift(const Model& model, KvCache& kv, KvRows& sequence, int64_t first, int64_t count);

}  // namespace hadal
