#include "ops/attend_tile.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "ops/products.h"
#include "ops/visible.h"

namespace hadal {
namespace {

constexpr int64_t page_rows = CacheRows::page_rows;
constexpr float masked = -std::numeric_limits<float>::infinity();

// The keys of one page that a row may attend to.
uint64_t visible_to(const Tile& t, int64_t row, int64_t entry) {
  const AttendArgs& a = *t.args;
  const uint64_t keys = visible_keys(a.mask, a.position + row, a.cache.pages[size_t(entry)].index);
  if (!a.selected.data) return keys;
  return keys & a.selected.row(row * a.selected_heads + (a.selected_heads > 1 ? t.kv_head() : 0))[entry];
}

struct Parts {  // of an int8 key: what belongs to the head, and what all heads share
  int64_t own, rotated, stride;
  explicit Parts(const AttendArgs& a)
      : own(padded_dims(a.key_dim - a.rotated_dim)), rotated(padded_dims(a.rotated_dim)), stride(own + rotated) {}
};

void quantize_part(const float* x, int64_t n, int64_t padded, int8_t* out, float scale, float* q_scale, int32_t* q_sum) {
  *q_scale = kernels().quantize(out, x, n, q_sum) * scale;
  std::fill(out + n, out + padded, int8_t(0));
}

void load_integer_queries(const Tile& t, TileScratch& s) {
  const AttendArgs& a = *t.args;
  const Parts parts(a);
  const int64_t pairs = t.pairs(), own = a.key_dim - a.rotated_dim;
  s.q_integers.resize(size_t(pairs * parts.stride));
  s.q_scale.resize(size_t(2 * pairs));
  s.q_sum.resize(size_t(2 * pairs));
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const float* q = a.q.row(t.first_row + pair / t.heads) + (t.first_head + pair % t.heads) * a.key_dim;
    int8_t* to = s.q_integers.data() + pair * parts.stride;
    quantize_part(q, own, parts.own, to, a.scale, &s.q_scale[size_t(pair)], &s.q_sum[size_t(pair)]);
    if (a.rotated_dim > 0)
      quantize_part(q + own, a.rotated_dim, parts.rotated, to + parts.own, a.scale, &s.q_scale[size_t(pairs + pair)],
                    &s.q_sum[size_t(pairs + pair)]);
  }
}

void attend_integers(const Tile& t, int64_t entry, TileScratch& s) {
  const AttendArgs& a = *t.args;
  const Kernels& kernel = kernels();
  const Parts parts(a);
  const std::byte* page = a.cache.pages[size_t(entry)].data;
  // With few rows the cache comes from memory as fast as it can. Loads in long streams do better than the order of the kernels: the head's
  // part of the page is read once before, and the next page asked for meanwhile (measured: 63 % of read bandwidth without, 81 % with).
  if (t.pairs() <= 8 && a.value_offset == a.key_offset + part_bytes(a.key_dim))
    (void)kernel.read_bytes(page + a.key_offset + t.kv_head() * a.key_step, part_bytes(a.key_dim) + part_bytes(a.value_dim));
  const bool more = t.pairs() <= 16 && entry + 1 < int64_t(a.cache.pages.size()) && visible_to(t, t.first_row + t.rows - 1, entry + 1) != 0;
  const CachePage* after = more ? &a.cache.pages[size_t(entry) + 1] : nullptr;
  ScoreArgs score{.scores = s.scores.data(),
                  .q = s.q_integers.data(),
                  .q_scale = s.q_scale.data(),
                  .q_sum = s.q_sum.data(),
                  .k = page + a.key_offset + t.kv_head() * a.key_step,
                  .m = t.pairs(),
                  .dims = parts.own,
                  .ldq = parts.stride,
                  .add = false,
                  .next = after ? after->data + a.key_offset + t.kv_head() * a.key_step : nullptr};
  kernel.score_page(score);
  if (a.rotated_dim > 0) {
    score.q += parts.own;
    score.q_scale += t.pairs();
    score.q_sum += t.pairs();
    score.k = (a.rotated_pages.empty() ? page : a.rotated_pages[size_t(entry)].data) + a.rotated_offset;
    score.dims = parts.rotated;
    score.add = true;
    score.next = nullptr;
    kernel.score_page(score);
  }
  const std::byte* values = page + a.value_offset + t.kv_head() * a.value_step;
  const int64_t dims = padded_dims(a.value_dim);
  kernel.softmax_page({.p = s.p.data(),
                       .scores = s.scores.data(),
                       .v_scale = reinterpret_cast<const float*>(values + page_rows * dims),
                       .visible = s.visible.data(),
                       .state = s.now.state.data(),
                       .factor = s.factor.data(),
                       .weight = s.weight.data(),
                       .m = t.pairs()});
  kernel.mix_page({.out = s.now.out.data(),
                   .p = s.p.data(),
                   .v = values,
                   .visible = s.visible.data(),
                   .factor = s.factor.data(),
                   .weight = s.weight.data(),
                   .m = t.pairs(),
                   .dims = dims,
                   .ldout = out_stride(a),
                   .next = after && a.value_offset != a.key_offset ? after->data + a.value_offset + t.kv_head() * a.value_step : nullptr});
}

void mask_scores(float* scores, int64_t n, uint64_t visible) {
  if (visible == ~uint64_t(0)) return;
  for (int64_t i = 0; i < n; ++i)
    if (!(visible >> i & 1)) scores[i] = masked;
}

void attend_floats(const Tile& t, int64_t entry, TileScratch& s) {
  const AttendArgs& a = *t.args;
  const Kernels& kernel = kernels();
  const CachePage& page = a.cache.pages[size_t(entry)];
  const int64_t pairs = t.pairs(), size = info_of(a.cache.type).block_bytes, stride = out_stride(a);
  const int64_t n = std::min(page_rows, a.position + t.first_row + t.rows - page.index * page_rows);
  gemm_for(a.cache.type)({.c = s.scores.data(),
                          .a = s.q.data(),
                          .b = page.data + (a.key_offset + t.kv_head() * a.key_step) * size,
                          .m = pairs,
                          .n = n,
                          .k = a.key_dim,
                          .lda = a.key_dim,
                          .ldb = a.cache.width,
                          .ldc = page_rows});
  for (int64_t pair = 0; pair < pairs; ++pair) {
    float* scores = s.scores.data() + pair * page_rows;
    mask_scores(scores, n, s.visible[size_t(pair)]);
    const float factor = kernel.softmax_block(scores, n, &s.now.state[size_t(pair)]);
    if (factor != 1.f) kernel.scale(s.now.out.data() + pair * stride, factor, a.value_dim);
  }
  mix_for(a.cache.type)({.out = s.now.out.data(),
                         .p = s.scores.data(),
                         .v = page.data + (a.value_offset + t.kv_head() * a.value_step) * size,
                         .m = pairs,
                         .n = a.value_dim,
                         .k = n,
                         .ldp = page_rows,
                         .ldv = a.cache.width,
                         .ldout = stride});
}

}  // namespace

void load_queries(const Tile& t, TileScratch& s) {
  const AttendArgs& a = *t.args;
  const int64_t pairs = t.pairs();
  s.scores.resize(size_t(pairs * page_rows));
  s.visible.resize(size_t(pairs));
  if (a.cache.type == DType::i8) {
    s.p.resize(size_t(pairs * page_rows));
    s.factor.resize(size_t(pairs));
    s.weight.resize(size_t(pairs));
    return load_integer_queries(t, s);
  }
  s.q.resize(size_t(pairs * a.key_dim));
  for (int64_t r = 0; r < t.rows; ++r) {
    float* to = s.q.data() + r * t.heads * a.key_dim;
    std::copy_n(a.q.row(t.first_row + r) + t.first_head * a.key_dim, t.heads * a.key_dim, to);
    kernels().scale(to, a.scale, t.heads * a.key_dim);
  }
}

bool attend_page(const Tile& t, int64_t entry, TileScratch& s) {
  uint64_t any = 0;
  for (int64_t r = 0; r < t.rows; ++r) {
    const uint64_t keys = visible_to(t, t.first_row + r, entry);
    any |= keys;
    std::fill_n(s.visible.begin() + r * t.heads, t.heads, keys);
  }
  if (any == 0) return false;
  (t.args->cache.type == DType::i8 ? attend_integers : attend_floats)(t, entry, s);
  return true;
}

}  // namespace hadal
