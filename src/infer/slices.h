// The rows of a batch as one layer's cache takes them: appended, and the pages that they then see.
#pragma once
#include <functional>
#include <vector>

#include "infer/forward.h"
#include "ops/attend.h"

namespace hadal {

struct Slice {  // consecutive rows of one sequence that are in the layer's cache together with all that they see
  const KvRows* kv;
  int64_t first_row, rows, position;
};

// Calls `body` with slices that cover the batch, one of each sequence at a time: whole segments, unless a window's ring is shorter.
void for_slices(const Batch& batch, const KvCache& kv, int64_t layer, const std::function<void(std::span<const Slice>)>& body);

struct Columns {  // where heads' keys or values lie in a page: elements of a row, or, i8, bytes of a page
  int64_t offset, step;
};

// Writes `values` [rows of the batch, heads * dims] for the slices' rows.
void append(const KvCache& kv, int64_t layer, std::span<const Slice> slices, Columns to, Mat<const float> values, int64_t heads);

std::vector<CachePage> visible_pages(const KvCache& kv, int64_t layer, const Slice& slice);

}  // namespace hadal
