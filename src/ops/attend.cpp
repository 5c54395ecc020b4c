// Attention over pages. A task is a few query heads that share a kv head, times a few rows: their (row, head) pairs are the rows of one
// tile, which walks the pages with an online softmax. A pair's result depends on its own query and keys only, because pages come in
// order and a masked key contributes an exact zero; so rows may be cut into tasks, batches and chunks at will.
#include <algorithm>
#include <limits>
#include <vector>

#include "core/pool.h"
#include "ops/ops.h"
#include "ops/products.h"

namespace hadal {
namespace {

constexpr int64_t page_rows = CacheRows::page_rows;
constexpr int64_t tile_rows = 64, tile_heads = 8;
constexpr float masked = -std::numeric_limits<float>::infinity();

struct Tile {  // one task
  const AttendArgs* args;
  int64_t first_head, heads, first_row, rows;
};

struct TileScratch {
  std::vector<float> q, out, scores;
  std::vector<SoftmaxState> softmax;
};

int64_t element_bytes(DType type) { return info_of(type).block_bytes; }

// The keys of one page that a row may attend to: bit i for row i of the page.
uint64_t visible_keys(const AttendArgs& a, int64_t row, int64_t page) {
  const int64_t count = a.position + row + 1 - page * page_rows;
  if (count <= 0) return 0;
  const uint64_t causal = count >= page_rows ? ~uint64_t(0) : (uint64_t(1) << count) - 1;
  return a.selected.data ? causal & a.selected.row(row)[page] : causal;
}

void mask_scores(float* scores, int64_t n, uint64_t visible) {
  if (visible == ~uint64_t(0)) return;
  for (int64_t i = 0; i < n; ++i)
    if (!(visible >> i & 1)) scores[i] = masked;
}

void attend_tile(const Tile& t, TileScratch& s) {
  const AttendArgs& a = *t.args;
  const Kernels& kernel = kernels();
  const int64_t pairs = t.rows * t.heads, kv_head = t.first_head / (a.heads / a.kv_heads);
  s.q.resize(size_t(pairs * a.key_dim));
  s.out.assign(size_t(pairs * a.value_dim), 0.f);
  s.scores.resize(size_t(pairs * page_rows));
  s.softmax.assign(size_t(pairs), SoftmaxState{});
  for (int64_t r = 0; r < t.rows; ++r) {
    const float* q = a.q.row(t.first_row + r) + t.first_head * a.key_dim;
    float* to = s.q.data() + r * t.heads * a.key_dim;
    std::copy_n(q, t.heads * a.key_dim, to);
    kernel.scale(to, a.scale, t.heads * a.key_dim);
  }

  const int64_t last_key = a.position + t.first_row + t.rows - 1;
  for (int64_t page = 0; page <= last_key / page_rows; ++page) {
    uint64_t any = 0;
    for (int64_t r = 0; r < t.rows; ++r) any |= visible_keys(a, t.first_row + r, page);
    if (any == 0) continue;
    const int64_t n = std::min(page_rows, last_key + 1 - page * page_rows);
    const std::byte* at = a.cache.pages[size_t(page)];
    gemm_for(a.cache.type)({.c = s.scores.data(),
                            .a = s.q.data(),
                            .b = at + (a.key_offset + kv_head * a.key_step) * element_bytes(a.cache.type),
                            .m = pairs,
                            .n = n,
                            .k = a.key_dim,
                            .lda = a.key_dim,
                            .ldb = a.cache.width,
                            .ldc = page_rows});
    for (int64_t pair = 0; pair < pairs; ++pair) {
      float* scores = s.scores.data() + pair * page_rows;
      mask_scores(scores, n, visible_keys(a, t.first_row + pair / t.heads, page));
      const float factor = kernel.softmax_block(scores, n, &s.softmax[size_t(pair)]);
      if (factor != 1.f) kernel.scale(s.out.data() + pair * a.value_dim, factor, a.value_dim);
    }
    mix_for(a.cache.type)({.out = s.out.data(),
                           .p = s.scores.data(),
                           .v = at + (a.value_offset + kv_head * a.value_step) * element_bytes(a.cache.type),
                           .m = pairs,
                           .n = a.value_dim,
                           .k = n,
                           .ldp = page_rows,
                           .ldv = a.cache.width,
                           .ldout = a.value_dim});
  }

  for (int64_t pair = 0; pair < pairs; ++pair) {
    float* out = s.out.data() + pair * a.value_dim;
    kernel.scale(out, 1.f / s.softmax[size_t(pair)].sum, a.value_dim);
    std::copy_n(out, a.value_dim, a.out.row(t.first_row + pair / t.heads) + (t.first_head + pair % t.heads) * a.value_dim);
  }
}

}  // namespace

void attend(std::span<const AttendArgs> segments) {
  std::vector<Tile> tiles;
  for (const AttendArgs& a : segments) {
    const int64_t group = a.heads / a.kv_heads;
    for (int64_t head = 0; head < a.heads;) {
      const int64_t heads = std::min(tile_heads, group - head % group), rows = std::max<int64_t>(1, tile_rows / heads);
      for (int64_t row = 0; row < a.q.rows; row += rows) tiles.push_back({&a, head, heads, row, std::min(rows, a.q.rows - row)});
      head += heads;
    }
  }
  pool().run(int64_t(tiles.size()), [&](int64_t task) {
    thread_local TileScratch scratch;
    attend_tile(tiles[size_t(task)], scratch);
  });
}

}  // namespace hadal
