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
  const Adapter* adapter = nullptr;
};

// Calls `body` with slices that cover the batch, one of each sequence at a time: whole segments, unless a window's ring is shorter.
void for_slices(const Batch& batch, const KvCache& kv, int64_t layer, const std::function<void(std::span<const Slice>)>& body);

struct Columns {  // where heads' keys or values lie in a page: elements of a row, or, i8, bytes of a page
  int64_t offset, step;
};

struct HeadColumns {  // grouped-query attention: all keys, then all values; i8: key and value of a head side by side
  Columns keys, values;
  HeadColumns(const ModelConfig& c, DType type)
      : keys{0, type == DType::i8 ? 2 * part_bytes(c.head_dim) : c.head_dim},
        values{type == DType::i8 ? part_bytes(c.head_dim) : c.kv_heads * c.head_dim, keys.step} {}
};

// Writes `values` [rows of the batch, heads * dims] for the slices' rows.
void append(const KvCache& kv, int64_t layer, std::span<const Slice> slices, Columns to, Mat<const float> values, int64_t heads);

// The inverse: fills `values` with what the slice's rows have kept.
void read_back(Mat<float> values, const KvCache& kv, int64_t layer, const Slice& slice, Columns from, int64_t heads);

// The keys' sketches, in a layer that chooses blocks; elsewhere nothing is done.
void append_sketches(const KvCache& kv, int64_t layer, std::span<const Slice> slices, Mat<const float> keys, int64_t heads);

// attend's `selected` for a layer that chooses blocks, [rows * kv_heads, pages] words in `storage`; elsewhere no words.
Mat<const uint64_t> select_blocks(const KvCache& kv, int64_t layer, const Slice& slice, std::span<const CachePage> pages,
                                  Mat<const float> q, int64_t heads, int64_t kv_heads, std::vector<uint64_t>& storage);

std::vector<CachePage> visible_pages(const KvCache& kv, int64_t layer, const Slice& slice);

}  // namespace hadal
