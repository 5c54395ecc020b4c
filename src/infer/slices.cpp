#include "infer/slices.h"

#include <algorithm>

#include "core/pool.h"
#include "ops/ops.h"

namespace hadal {

void for_slices(const Batch& batch, const KvCache& kv, int64_t layer, const std::function<void(std::span<const Slice>)>& body) {
  std::vector<Slice> rest, now;
  for (const Segment& s : batch.segments) rest.push_back({s.kv, s.first_row, s.rows, s.position, s.adapter});
  while (!rest.empty()) {
    now.clear();
    for (Slice& slice : rest) {
      const int64_t rows = kv.rows_together(layer, slice.position, slice.rows);
      now.push_back({slice.kv, slice.first_row, rows, slice.position, slice.adapter});
      slice.first_row += rows, slice.position += rows, slice.rows -= rows;
    }
    body(now);
    std::erase_if(rest, [](const Slice& slice) { return slice.rows == 0; });
  }
}

namespace {

struct Run {  // rows of one slice that fall into the same panel of 16, which one task writes
  const Slice* slice;
  int64_t first, end;
};

std::vector<Run> runs_of(std::span<const Slice> slices) {
  constexpr int64_t panel = 16;
  std::vector<Run> runs;
  for (const Slice& slice : slices)
    for (int64_t r = 0, end; r < slice.rows; r = end) {
      end = std::min(slice.rows, r + panel - (slice.position + r) % panel);
      runs.push_back({&slice, r, end});
    }
  return runs;
}

}  // namespace

void append(const KvCache& kv, int64_t layer, std::span<const Slice> slices, Columns to, Mat<const float> values, int64_t heads) {
  const std::vector<Run> runs = runs_of(slices);
  const int64_t dims = values.cols / heads;
  pool().run(int64_t(runs.size()), [&](int64_t task) {
    const auto [slice, first, end] = runs[size_t(task)];
    std::byte* page = kv.page(layer, *slice->kv, (slice->position + first) / KvCache::page_rows);
    const int64_t row = (slice->position + first) % KvCache::page_rows;
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t r = first; r < end; ++r) {
        const float* x = values.row(slice->first_row + r) + head * dims;
        const int64_t at = to.offset + head * to.step;
        if (kv.type() == DType::i8)
          store_part_row(page + at, row + r - first, x, dims);
        else
          store_row(page + bytes_of(kv.type(), (row + r - first) * kv.width() + at), kv.type(), x, dims);
      }
  });
}

void read_back(Mat<float> values, const KvCache& kv, int64_t layer, const Slice& slice, Columns from, int64_t heads) {
  const std::vector<Run> runs = runs_of({&slice, 1});
  const int64_t dims = values.cols / heads;
  pool().run(int64_t(runs.size()), [&](int64_t task) {
    const auto [of, first, end] = runs[size_t(task)];
    const std::byte* page = kv.page(layer, *of->kv, (of->position + first) / KvCache::page_rows);
    const int64_t row = (of->position + first) % KvCache::page_rows;
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t r = first; r < end; ++r) {
        float* x = values.row(of->first_row + r) + head * dims;
        const int64_t at = from.offset + head * from.step;
        if (kv.type() == DType::i8)
          load_part_row(x, page + at, row + r - first, dims);
        else
          load_row(x, kv.type(), page + bytes_of(kv.type(), (row + r - first) * kv.width() + at), dims);
      }
  });
}

void append_sketches(const KvCache& kv, int64_t layer, std::span<const Slice> slices, Mat<const float> keys, int64_t heads) {
  if (kv.mask(layer).top_blocks == 0) return;
  const std::vector<Run> runs = runs_of(slices);
  const int64_t dims = keys.cols / heads;
  pool().run(int64_t(runs.size()), [&](int64_t task) {
    const auto [slice, first, end] = runs[size_t(task)];
    for (int64_t r = first; r < end; ++r) {
      const int64_t position = slice->position + r;
      std::byte* page = kv.page(layer, *slice->kv, position / KvCache::page_rows);
      for (int64_t head = 0; head < heads; ++head)
        store_sketch_row(page + kv.sketch_offset() + head * sketch_bytes(dims), position % KvCache::page_rows,
                         keys.row(slice->first_row + r) + head * dims, dims);
    }
  });
}

Mat<const uint64_t> select_blocks(const KvCache& kv, int64_t layer, const Slice& slice, std::span<const CachePage> pages,
                                  Mat<const float> q, int64_t heads, int64_t kv_heads, std::vector<uint64_t>& storage) {
  const Mask mask = kv.mask(layer);
  if (mask.top_blocks == 0) return {};
  const int64_t words = int64_t(pages.size()), dim = q.cols / heads;
  storage.resize(size_t(slice.rows * kv_heads * words));
  const Mat<uint64_t> selected{storage.data(), slice.rows * kv_heads, words, words};
  select_blocks({.selected = selected,
                 .q = q,
                 .pages = pages,
                 .position = slice.position,
                 .heads = heads,
                 .kv_heads = kv_heads,
                 .dim = dim,
                 .sketch_offset = kv.sketch_offset(),
                 .sketch_step = sketch_bytes(dim),
                 .mask = mask});
  return selected;
}

std::vector<CachePage> visible_pages(const KvCache& kv, int64_t layer, const Slice& slice) {
  const Mask mask = kv.mask(layer);
  const int64_t first = mask.first_page(slice.position), last = (slice.position + slice.rows - 1) / KvCache::page_rows;
  std::vector<CachePage> pages;
  for (int64_t i = 0; i < std::min(first, mask.sink_pages()); ++i) pages.push_back({i, kv.page(layer, *slice.kv, i)});
  for (int64_t i = first; i <= last; ++i) pages.push_back({i, kv.page(layer, *slice.kv, i)});
  return pages;
}

}  // namespace hadal
