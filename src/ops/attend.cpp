// How attention is cut into tasks. A task is a tile of (row, head) pairs that walks its pages with an online softmax. Every
// `range_pages` pages, counted from the sequence's begin, the softmax starts anew and the parts are merged in order: the same numbers
// whether one task walks all ranges of a tile or, where tiles are few, one task each.
#include "ops/attend.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/pool.h"
#include "ops/attend_tile.h"

namespace hadal {
namespace {

constexpr int64_t tile_pairs = 64, range_pages = 8;
constexpr float nothing_seen = -std::numeric_limits<float>::infinity();

struct Range {  // entries of a page list whose indices fall into the same range; a gap among them is not seen by any row
  int64_t first, end;
};

void reset(Partial& part, const Tile& t) {
  part.state.assign(size_t(t.pairs()), SoftmaxState{});
  part.out.assign(size_t(t.pairs() * out_stride(*t.args)), 0.f);
}

void attend_range(const Tile& t, Range range, TileScratch& s) {
  reset(s.now, t);
  for (int64_t entry = range.first; entry < range.end; ++entry) attend_page(t, entry, s);
}

void add_part(const Tile& t, Partial& total, const Partial& part) {
  const int64_t stride = out_stride(*t.args);
  for (int64_t pair = 0; pair < t.pairs(); ++pair) {
    SoftmaxState &mine = total.state[size_t(pair)], theirs = part.state[size_t(pair)];
    float* out = total.out.data() + pair * stride;
    if (theirs.max == nothing_seen) continue;
    if (mine.max != nothing_seen) {
      kernels().merge(out, &mine, part.out.data() + pair * stride, &theirs, stride);
    } else {
      mine = theirs;
      std::copy_n(part.out.data() + pair * stride, stride, out);
    }
  }
}

void write_out(const Tile& t, const Partial& total) {
  const AttendArgs& a = *t.args;
  for (int64_t pair = 0; pair < t.pairs(); ++pair) {
    float* to = a.out.row(t.first_row + pair / t.heads) + (t.first_head + pair % t.heads) * a.value_dim;
    std::copy_n(total.out.data() + pair * out_stride(a), a.value_dim, to);
    kernels().scale(to, 1.f / total.state[size_t(pair)].sum, a.value_dim);
  }
}

std::vector<Range> ranges_of(const Tile& t) {
  const AttendArgs& a = *t.args;
  const int64_t last = (a.position + t.first_row + t.rows - 1) / CacheRows::page_rows, first = a.mask.first_page(a.position + t.first_row);
  std::vector<Range> ranges;
  int64_t before = -1;
  for (int64_t entry = 0; entry < int64_t(a.cache.pages.size()); ++entry) {
    const int64_t index = a.cache.pages[size_t(entry)].index;
    if (index > last) break;
    if (index < first && index >= a.mask.sink_pages()) continue;
    if (index / range_pages != before) ranges.push_back({entry, entry});
    ranges.back().end = entry + 1;
    before = index / range_pages;
  }
  return ranges;
}

std::vector<Tile> tiles_of(std::span<const AttendArgs> segments) {
  std::vector<Tile> tiles;
  for (const AttendArgs& a : segments) {
    CHECK(a.cache.type == DType::i8 || a.rotated_dim == 0);
    const int64_t group = a.heads / a.kv_heads, most_heads = a.cache.type == DType::i8 ? 16 : 8;
    for (int64_t head = 0; head < a.heads;) {
      const int64_t heads = std::min(most_heads, group - head % group), rows = std::max<int64_t>(1, tile_pairs / heads);
      for (int64_t row = 0; row < a.q.rows; row += rows) tiles.push_back({&a, head, heads, row, std::min(rows, a.q.rows - row)});
      head += heads;
    }
  }
  return tiles;
}

void attend_whole(std::span<const Tile> tiles) {
  pool().run(int64_t(tiles.size()), [&](int64_t task) {
    thread_local TileScratch s;
    const Tile& t = tiles[size_t(task)];
    load_queries(t, s);
    reset(s.total, t);
    for (const Range range : ranges_of(t)) {
      attend_range(t, range, s);
      add_part(t, s.total, s.now);
    }
    write_out(t, s.total);
  });
}

void attend_by_ranges(std::span<const Tile> tiles) {
  struct Task {
    const Tile* tile;
    Range range;
  };
  std::vector<Task> tasks;
  std::vector<size_t> first;  // task of each tile
  for (const Tile& t : tiles) {
    first.push_back(tasks.size());
    for (const Range range : ranges_of(t)) tasks.push_back({&t, range});
  }
  first.push_back(tasks.size());
  std::vector<Partial> parts(tasks.size());
  pool().run(int64_t(tasks.size()), [&](int64_t task) {
    thread_local TileScratch s;
    const Task& now = tasks[size_t(task)];
    load_queries(*now.tile, s);
    std::swap(s.now, parts[size_t(task)]);
    attend_range(*now.tile, now.range, s);
    std::swap(s.now, parts[size_t(task)]);
  });
  pool().run(int64_t(tiles.size()), [&](int64_t i) {
    const size_t begin = first[size_t(i)], end = first[size_t(i) + 1];
    for (size_t task = begin + 1; task < end; ++task) add_part(tiles[size_t(i)], parts[begin], parts[task]);
    write_out(tiles[size_t(i)], parts[begin]);
  });
}

}  // namespace

void attend(std::span<const AttendArgs> segments) {
  const std::vector<Tile> tiles = tiles_of(segments);
  const bool enough = pool().threads() == 1 || int64_t(tiles.size()) >= 8 * pool().threads();
  (enough ? attend_whole : attend_by_ranges)(tiles);
}

void store_part_row(std::byte* part, int64_t row, const float* x, int64_t dims) {
  thread_local std::vector<int8_t> integers;
  const int64_t padded = padded_dims(dims);
  integers.assign(size_t(padded), 0);
  int32_t sum;
  const float scale = kernels().quantize(integers.data(), x, dims, &sum);
  std::byte* panel = part + row / 16 * 16 * padded + row % 16 * 4;
  for (int64_t d = 0; d < padded; d += 4) std::copy_n(reinterpret_cast<const std::byte*>(integers.data() + d), 4, panel + d * 16);
  reinterpret_cast<float*>(part + CacheRows::page_rows * padded)[row] = scale;
}

void load_part_row(float* x, const std::byte* part, int64_t row, int64_t dims) {
  const int64_t padded = padded_dims(dims);
  const float scale = reinterpret_cast<const float*>(part + CacheRows::page_rows * padded)[row];
  const auto* panel = reinterpret_cast<const int8_t*>(part + row / 16 * 16 * padded + row % 16 * 4);
  for (int64_t d = 0; d < dims; ++d) {
    const int64_t at = d / 4 * 64 + d % 4;
    x[d] = float(panel[at]) * scale;
  }
}

}  // namespace hadal
