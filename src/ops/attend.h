// Attention over the pages of a cache, and what it may see. A result depends on the row's own query, its position and the keys it sees,
// not on how rows are cut into calls, batches or threads. On int8 pages every level gives the same bits.
#pragma once
#include <cstdint>
#include <span>

#include "core/mat.h"

namespace hadal {

struct CachePage {
  int64_t index;  // holds the rows of positions index * page_rows ...
  const std::byte* data;
};

// The cached rows of one sequence in one layer that somebody may look at, in ascending order of position.
// f32, f16: a page is [page_rows, width]. i8: a page consists of parts (kernels/attend.h), found by their offset in bytes.
struct CacheRows {
  DType type;  // f32, f16 or i8
  std::span<const CachePage> pages;
  int64_t width;  // f32, f16: elements from one row to the next
  static constexpr int64_t page_rows = 64;
};

constexpr int64_t padded_dims(int64_t dims) { return (dims + 3) / 4 * 4; }
constexpr int64_t part_bytes(int64_t dims) { return CacheRows::page_rows * (padded_dims(dims) + int64_t(sizeof(float))); }

// Writes row `row` of an int8 part, and reads it back.
void store_part_row(std::byte* part, int64_t row, const float* x, int64_t dims);
void load_part_row(float* x, const std::byte* part, int64_t row, int64_t dims);

struct Mask {              // which keys of the past a row sees; its own key is always one of them
  int64_t window = 0;      // the last `window` keys, its own included; 0: all
  int64_t sinks = 0;       // and the first `sinks`; only beside a window
  int64_t top_blocks = 0;  // of the pages with such keys, the best so many by content (select_blocks); 0: all
  // Index of the first page behind the sinks' that a row at `position` or later can see.
  int64_t first_page(int64_t position) const {
    return window > 0 && position >= window ? (position - window + 1) / CacheRows::page_rows : 0;
  }
  int64_t sink_pages() const { return window > 0 ? (sinks + CacheRows::page_rows - 1) / CacheRows::page_rows : 0; }
  bool operator==(const Mask&) const = default;
};

// Attention of the rows of q, at positions position, position + 1, ...; each sees the keys that `mask` shows of those up to its own.
// Query head h reads key columns key_offset + h / (heads / kv_heads) * key_step .. of a cached row, and value columns likewise;
// on i8, offset and step count bytes from a page's begin.
struct AttendArgs {
  Mat<float> out;      // [rows, heads * value_dim]
  Mat<const float> q;  // [rows, heads * key_dim], rotated
  CacheRows cache;
  int64_t position, heads, kv_heads, key_dim, value_dim, key_offset, key_step, value_offset, value_step;
  float scale;  // on q . k
  Mask mask = {};
  // Bit i of word (r * selected_heads + kv head, p): row r may attend to row i of cache.pages[p]; no words: to all. selected_heads is 1,
  // all heads see the same, or kv_heads.
  Mat<const uint64_t> selected = {};
  int64_t selected_heads = 1;
  // i8: the last `rotated_dim` of key_dim columns are a part of their own, which all heads share, in pages of its own.
  std::span<const CachePage> rotated_pages = {};  // as many as cache.pages; none: the same pages
  int64_t rotated_dim = 0, rotated_offset = 0;
};
void attend(std::span<const AttendArgs> segments);

// The `keys` best keys of each row by sum over heads of weight * max(0, q_head . key), as attend's `selected`; ties go to the earlier key.
// cache.pages starts with the sequence's first page. Source: DeepSeek-V3.2-Exp, inference/model.py, Indexer.
struct SelectArgs {
  Mat<uint64_t> selected;         // [rows, pages], written
  Mat<const float> q;             // [rows, heads * dim]
  Mat<const float> head_weights;  // [rows, heads]
  CacheRows cache;
  int64_t position, heads, dim, offset, keys;  // offset: first column of the key in a cached row; i8: bytes to its part
};
void select_keys(const SelectArgs& args);

// A sketch of a page's keys (kernels/attend.h), and how one of its rows is written.
constexpr int64_t sketch_bytes(int64_t dims) { return 8 * dims + CacheRows::page_rows * int64_t(sizeof(float)); }
void store_sketch_row(std::byte* sketch, int64_t row, const float* key, int64_t dims);

// The pages that each row and kv head attends to, as attend's `selected` with kv_heads: the first, its own and the one before, and the best
// of the others, `mask.top_blocks` in all. A page is as good as its best key for one of the heads, by the key's signs and size.
struct SelectBlocksArgs {
  Mat<uint64_t> selected;  // [rows * kv_heads, pages], written
  Mat<const float> q;      // [rows, heads * dim]
  std::span<const CachePage> pages;
  int64_t position, heads, kv_heads, dim, sketch_offset, sketch_step;  // bytes from a page's begin, and from one kv head to the next
  Mask mask;
};
void select_blocks(const SelectBlocksArgs& args);

}  // namespace hadal
