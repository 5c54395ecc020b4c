// The lightning indexer's choice: which keys of the past a row attends to.
#include <algorithm>
#include <vector>

#include "core/pool.h"
#include "ops/attend.h"
#include "ops/products.h"

namespace hadal {
namespace {

constexpr int64_t page_rows = CacheRows::page_rows;

struct IndexQuery {  // of one row; int8 for int8 pages
  std::vector<int8_t> integers;
  std::vector<float> scale;
  std::vector<int32_t> sum;
};

void quantize_query(const SelectArgs& a, int64_t row, IndexQuery& q) {
  const int64_t padded = padded_dims(a.dim);
  q.integers.assign(size_t(a.heads * padded), 0);
  q.scale.resize(size_t(a.heads));
  q.sum.resize(size_t(a.heads));
  for (int64_t head = 0; head < a.heads; ++head)
    q.scale[size_t(head)] = kernels().quantize(q.integers.data() + head * padded, a.q.row(row) + head * a.dim, a.dim, &q.sum[size_t(head)]);
}

void score_keys(const SelectArgs& a, int64_t row, int64_t page, int64_t n, const IndexQuery& q, float* by_head, float* scores) {
  const std::byte* data = a.cache.pages[size_t(page)].data;
  if (a.cache.type == DType::i8) {
    kernels().score_page({.scores = by_head,
                          .q = q.integers.data(),
                          .q_scale = q.scale.data(),
                          .q_sum = q.sum.data(),
                          .k = data + a.offset,
                          .m = a.heads,
                          .dims = padded_dims(a.dim),
                          .ldq = padded_dims(a.dim),
                          .add = false});
  } else {
    gemm_for(a.cache.type)({.c = by_head,
                            .a = a.q.row(row),
                            .b = data + a.offset * info_of(a.cache.type).block_bytes,
                            .m = a.heads,
                            .n = n,
                            .k = a.dim,
                            .lda = a.dim,
                            .ldb = a.cache.width,
                            .ldc = page_rows});
  }
  std::fill_n(scores, n, 0.f);
  for (int64_t head = 0; head < a.heads; ++head)
    for (int64_t i = 0; i < n; ++i) scores[i] += a.head_weights.row(row)[head] * std::max(0.f, by_head[head * page_rows + i]);
}

void select_row(const SelectArgs& a, int64_t row) {
  const int64_t visible = a.position + row + 1;
  uint64_t* words = a.selected.row(row);
  if (visible <= a.keys) {
    std::fill_n(words, a.selected.cols, ~uint64_t(0));
    return;
  }
  thread_local std::vector<float> by_head, scores;
  thread_local std::vector<int32_t> order;
  thread_local IndexQuery q;
  if (a.cache.type == DType::i8) quantize_query(a, row, q);
  by_head.resize(size_t(a.heads * page_rows));
  scores.resize(size_t(visible));
  order.resize(size_t(visible));
  for (int64_t page = 0; page * page_rows < visible; ++page)
    score_keys(a, row, page, std::min(page_rows, visible - page * page_rows), q, by_head.data(), scores.data() + page * page_rows);
  for (int64_t i = 0; i < visible; ++i) order[size_t(i)] = int32_t(i);
  std::nth_element(order.begin(), order.begin() + a.keys - 1, order.end(), [&](int32_t x, int32_t y) {
    return scores[size_t(x)] != scores[size_t(y)] ? scores[size_t(x)] > scores[size_t(y)] : x < y;
  });
  std::fill_n(words, a.selected.cols, uint64_t(0));
  for (int64_t i = 0; i < a.keys; ++i) words[order[size_t(i)] / page_rows] |= uint64_t(1) << order[size_t(i)] % page_rows;
}

}  // namespace

void select_keys(const SelectArgs& a) {
  pool().run(a.q.rows, [&](int64_t row) { select_row(a, row); });
}

}  // namespace hadal
