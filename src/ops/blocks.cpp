// Block top-k: which pages a row attends to, chosen by a sketch of their keys that is a sixteenth of an int8 cache.
#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "core/pool.h"
#include "kernels/kernels.h"
#include "ops/attend.h"
#include "ops/visible.h"

namespace hadal {
namespace {

constexpr float never = -std::numeric_limits<float>::infinity();

struct Choice {  // scratch of a task
  std::vector<int8_t> q;
  std::vector<float> of_head, score;
  std::vector<int32_t> order;
};

// score[p]: the best key of page p for any of the heads, less that head's best key of all; never where no key is visible.
void score_pages(const SelectBlocksArgs& a, int64_t row, int64_t kv_head, Choice& c) {
  const int64_t group = a.heads / a.kv_heads, pages = int64_t(a.pages.size());
  c.score.assign(size_t(pages), never);
  c.of_head.resize(size_t(pages));
  c.q.resize(size_t(a.dim));
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    int32_t sum;
    const float scale = kernels().quantize(c.q.data(), a.q.row(row) + head * a.dim, a.dim, &sum);
    float best = never;
    for (int64_t p = 0; p < pages; ++p) {
      const uint64_t visible = visible_keys(a.mask, a.position + row, a.pages[size_t(p)].index);
      const std::byte* sketch = a.pages[size_t(p)].data + a.sketch_offset + kv_head * a.sketch_step;
      float& score = c.of_head[size_t(p)];
      score = visible ? kernels().best_in_sketch(c.q.data(), sketch, a.dim, visible) * scale : never;
      best = std::max(best, score);
    }
    for (int64_t p = 0; p < pages; ++p)
      if (c.of_head[size_t(p)] != never) c.score[size_t(p)] = std::max(c.score[size_t(p)], c.of_head[size_t(p)] - best);
  }
}

void select(const SelectBlocksArgs& a, int64_t row, int64_t kv_head, Choice& c) {
  uint64_t* words = a.selected.row(row * a.kv_heads + kv_head);
  const int64_t pages = int64_t(a.pages.size()), own = (a.position + row) / CacheRows::page_rows;
  const auto seen = [&](int64_t p) { return visible_keys(a.mask, a.position + row, a.pages[size_t(p)].index) != 0; };
  int64_t candidates = 0;
  for (int64_t p = 0; p < pages; ++p) candidates += seen(p);
  std::fill_n(words, pages, candidates <= a.mask.top_blocks ? ~uint64_t(0) : 0);
  if (candidates <= a.mask.top_blocks) return;
  score_pages(a, row, kv_head, c);
  for (int64_t p = 0; p < pages; ++p) {
    const int64_t index = a.pages[size_t(p)].index;
    if (seen(p) && (index == 0 || index == own || index == own - 1)) c.score[size_t(p)] = -never;
  }
  c.order.resize(size_t(pages));
  std::iota(c.order.begin(), c.order.end(), 0);
  std::nth_element(c.order.begin(), c.order.begin() + a.mask.top_blocks - 1, c.order.end(), [&](int32_t x, int32_t y) {
    // The row's own page before all others, then by score, the later page first.
    const bool own_x = a.pages[size_t(x)].index == own, own_y = a.pages[size_t(y)].index == own;
    if (own_x != own_y) return own_x;
    return c.score[size_t(x)] != c.score[size_t(y)] ? c.score[size_t(x)] > c.score[size_t(y)] : x > y;
  });
  for (int64_t i = 0; i < a.mask.top_blocks; ++i) words[c.order[size_t(i)]] = ~uint64_t(0);
}

}  // namespace

void select_blocks(const SelectBlocksArgs& a) {
  pool().run(a.q.rows * a.kv_heads, [&](int64_t task) {
    thread_local Choice choice;
    select(a, task / a.kv_heads, task % a.kv_heads, choice);
  });
}

void store_sketch_row(std::byte* sketch, int64_t row, const float* key, int64_t dims) {
  double sum = 0;
  auto* quarter = reinterpret_cast<uint16_t*>(sketch) + row / 16;  // of each word: the rows of one panel, which one task writes
  for (int64_t d = 0; d < dims; ++d) {
    const uint16_t bit = uint16_t(1u << row % 16);
    quarter[4 * d] = uint16_t(key[d] < 0 ? quarter[4 * d] | bit : quarter[4 * d] & ~bit);
    sum += double(key[d] < 0 ? -key[d] : key[d]);
  }
  reinterpret_cast<float*>(sketch + 8 * dims)[row] = float(sum / double(dims));
}

}  // namespace hadal
