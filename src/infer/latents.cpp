// The two algorithms of multi-head latent attention.
#include "infer/latents.h"

#include <algorithm>

#include "core/pool.h"
#include "infer/adapter.h"

namespace hadal {
namespace {

LowRank adapter_of(const Slice& slice, const Weight& w) { return slice.adapter ? slice.adapter->beside(w) : LowRank{}; }

struct HeadRows {  // of kv_up, for one head's keys or values
  int64_t first, count;
};
HeadRows key_rows(const ModelConfig& c, int64_t head) { return {head * (c.nope_dim + c.v_dim), c.nope_dim}; }
HeadRows value_rows(const ModelConfig& c, int64_t head) { return {head * (c.nope_dim + c.v_dim) + c.nope_dim, c.v_dim}; }

LowRank cut(const LowRank& w, HeadRows rows) { return {w.down, w.up.cols_from(rows.first, rows.count)}; }
LowRank transposed(const LowRank& w) { return {w.up, w.down}; }

// What adapters of kv_up add to queries on their way into the latent space, and to values on their way out of it.
void adapt_absorbed(std::span<const LatentRows> run, const Mla<Weight>& w, const Pass& pass) {
  const ModelConfig& c = pass.model.config;
  std::vector<Addition> additions;
  for (const LatentRows& m : run)
    if (const LowRank low = adapter_of(m.slice, w.kv_up))
      for (int64_t head = 0; head < c.heads; ++head)
        additions.push_back(
            {pass.s.q_absorbed.rows_from(m.slice.first_row, m.slice.rows).cols_from(head * (c.kv_rank + c.rope_dim), c.kv_rank),
             pass.s.q.rows_from(m.slice.first_row, m.slice.rows).cols_from(head * c.q_dim(), c.nope_dim),
             transposed(cut(low, key_rows(c, head)))});
  add_low_rank(additions, pass.s.low);
}

void adapt_values(std::span<const LatentRows> run, const Mla<Weight>& w, const Pass& pass) {
  const ModelConfig& c = pass.model.config;
  std::vector<Addition> additions;
  for (const LatentRows& m : run)
    if (const LowRank low = adapter_of(m.slice, w.kv_up))
      for (int64_t head = 0; head < c.heads; ++head)
        additions.push_back({pass.s.heads.rows_from(m.slice.first_row, m.slice.rows).cols_from(head * c.v_dim, c.v_dim),
                             pass.s.latent_out.rows_from(m.slice.first_row, m.slice.rows).cols_from(head * c.kv_rank, c.kv_rank),
                             cut(low, value_rows(c, head))});
  add_low_rank(additions, pass.s.low);
}

// One of each slice: all heads read the same latents. words: room for the blocks that a slice's rows choose.
std::vector<AttendArgs> latent_segments(std::span<const LatentRows> run, int64_t layer, const Pass& pass,
                                        std::vector<std::vector<uint64_t>>& words) {
  const ModelConfig& c = pass.model.config;
  const bool integers = pass.kv.type() == DType::i8;
  std::vector<AttendArgs> segments;
  words.resize(run.size());
  for (const LatentRows& m : run) {
    const Mat<const float> queries = pass.s.q_absorbed.rows_from(m.slice.first_row, m.slice.rows);
    const Mat<const uint64_t> blocks = select_blocks(pass.kv, layer, m.slice, m.pages, queries, c.heads, 1, words[segments.size()]);
    segments.push_back({.out = pass.s.latent_out.rows_from(m.slice.first_row, m.slice.rows),
                        .q = queries,
                        .cache = m.cache,
                        .position = m.slice.position,
                        .heads = c.heads,
                        .kv_heads = 1,
                        .key_dim = c.kv_rank + c.rope_dim,
                        .value_dim = c.kv_rank,
                        .key_offset = 0,
                        .key_step = 0,
                        .value_offset = 0,
                        .value_step = 0,
                        .scale = c.attention_scale,
                        .mask = m.mask,
                        .selected = blocks.data ? blocks : m.selected(),
                        .rotated_dim = integers ? c.rope_dim : 0,
                        .rotated_offset = LatentColumns(c, DType::i8).rotated});
  }
  return segments;
}

}  // namespace

void attend_latents(std::span<const LatentRows> run, int64_t layer, const Mla<Weight>& w, const Pass& pass) {
  const ModelConfig& c = pass.model.config;
  const int64_t key_dim = c.kv_rank + c.rope_dim, first = run.front().slice.first_row;
  const int64_t rows = run.back().slice.first_row + run.back().slice.rows - first;
  const Mat<float> q = pass.s.q.rows_from(first, rows);
  const Mat<float> absorbed = pass.s.q_absorbed.rows_from(first, rows), latent_out = pass.s.latent_out.rows_from(first, rows);
  matmul_heads({.out = absorbed,
                .x = q,
                .w = pass.model.k_up_t[size_t(layer)],
                .heads = c.heads,
                .out_step = key_dim,
                .x_step = c.q_dim(),
                .first_row = 0,
                .row_step = c.kv_rank,
                .rows_per_head = c.kv_rank});
  adapt_absorbed(run, w, pass);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t head = 0; head < c.heads; ++head)
      std::copy_n(q.row(r) + head * c.q_dim() + c.nope_dim, c.rope_dim, absorbed.row(r) + head * key_dim + c.kv_rank);
  std::vector<std::vector<uint64_t>> words;
  const std::vector<AttendArgs> segments = latent_segments(run, layer, pass, words);
  pass.lap(Phase::latent);
  attend(segments);
  pass.lap(Phase::attention);
  matmul_heads({.out = pass.s.heads.rows_from(first, rows),
                .x = latent_out,
                .w = w.kv_up,
                .heads = c.heads,
                .out_step = c.v_dim,
                .x_step = c.kv_rank,
                .first_row = c.nope_dim,
                .row_step = c.nope_dim + c.v_dim,
                .rows_per_head = c.v_dim});
  adapt_values(run, w, pass);
  pass.lap(Phase::latent);
}

namespace {

int64_t stored_rows(const LatentRows& m) {  // of all pages; only the last may be short
  const int64_t last = int64_t(m.pages.size()) - 1;
  return last * CacheRows::page_rows + m.slice.position + m.slice.rows - m.pages[size_t(last)].index * CacheRows::page_rows;
}

// The stored rows as floats: [rows, kv_rank + rope_dim].
Mat<float> gather_latents(const LatentRows& m, const ModelConfig& c, std::vector<float>& storage) {
  const int64_t rows = stored_rows(m), cols = c.kv_rank + c.rope_dim;
  storage.resize(size_t(rows * cols));
  pool().run(int64_t(m.pages.size()), [&](int64_t page) {
    for (int64_t i = page * CacheRows::page_rows; i < std::min(rows, (page + 1) * CacheRows::page_rows); ++i) {
      const std::byte* data = m.pages[size_t(page)].data;
      const int64_t row = i % CacheRows::page_rows;
      float* to = storage.data() + i * cols;
      if (m.cache.type != DType::i8) {
        load_row(to, m.cache.type, data + bytes_of(m.cache.type, row * m.cache.width), cols);
      } else {
        load_part_row(to, data, row, c.kv_rank);
        load_part_row(to + c.kv_rank, data + LatentColumns(c, DType::i8).rotated, row, c.rope_dim);
      }
    }
  });
  return {storage.data(), rows, cols, cols};
}

// Keys and values of heads head .. head + count - 1 for every stored row: out [rows, count * width], per head [key | .. | value].
void expand(Mat<float> out, Mat<const float> latents, const Weight& kv_up, int64_t head, int64_t count, int64_t width,
            const ModelConfig& c) {
  const int64_t per_head = c.nope_dim + c.v_dim;
  HeadProducts keys{.out = out,
                    .x = latents.cols_from(0, c.kv_rank),
                    .w = kv_up,
                    .heads = count,
                    .out_step = width,
                    .x_step = 0,
                    .first_row = head * per_head,
                    .row_step = per_head,
                    .rows_per_head = c.nope_dim};
  matmul_heads(keys);
  const int64_t values_at = width - c.v_dim;
  HeadProducts values{.out = out.cols_from(values_at, out.cols - values_at),
                      .x = keys.x,
                      .w = kv_up,
                      .heads = count,
                      .out_step = width,
                      .x_step = 0,
                      .first_row = keys.first_row + c.nope_dim,
                      .row_step = per_head,
                      .rows_per_head = c.v_dim};
  matmul_heads(values);
}

// What an adapter of kv_up adds to these.
void adapt_expanded(Mat<float> out, Mat<const float> latents, const LowRank& low, int64_t head, int64_t count, int64_t width,
                    const Pass& pass) {
  const ModelConfig& c = pass.model.config;
  const Mat<const float> x = latents.cols_from(0, c.kv_rank);
  std::vector<Addition> additions;
  for (int64_t i = 0; i < count && low; ++i) {
    additions.push_back({out.cols_from(i * width, c.nope_dim), x, cut(low, key_rows(c, head + i))});
    additions.push_back({out.cols_from((i + 1) * width - c.v_dim, c.v_dim), x, cut(low, value_rows(c, head + i))});
  }
  add_low_rank(additions, pass.s.low);
}

// Expanded rows as pages of int8 parts, per head [key | value]; the rotated keys stay where they are, in the cache.
void pack_pages(Mat<const float> expanded, int64_t count, const ModelConfig& c, std::vector<std::byte>& storage) {
  const int64_t key = part_bytes(c.nope_dim), head_bytes = key + part_bytes(c.v_dim), width = c.nope_dim + c.v_dim;
  const int64_t pages = (expanded.rows + CacheRows::page_rows - 1) / CacheRows::page_rows;
  storage.resize(size_t(pages * count * head_bytes));
  pool().run(pages * count, [&](int64_t task) {
    const int64_t page = task / count, head = task % count;
    std::byte* part = storage.data() + task * head_bytes;
    for (int64_t row = 0; row < std::min(CacheRows::page_rows, expanded.rows - page * CacheRows::page_rows); ++row) {
      const float* x = expanded.row(page * CacheRows::page_rows + row) + head * width;
      store_part_row(part, row, x, c.nope_dim);
      store_part_row(part + key, row, x + c.nope_dim, c.v_dim);
    }
  });
}

void copy_rotated(Mat<float> expanded, Mat<const float> latents, int64_t count, int64_t width, const ModelConfig& c) {
  pool().run((latents.rows + 63) / 64, [&](int64_t block) {
    for (int64_t i = block * 64; i < std::min(latents.rows, block * 64 + 64); ++i)
      for (int64_t j = 0; j < count; ++j) std::copy_n(latents.row(i) + c.kv_rank, c.rope_dim, expanded.row(i) + j * width + c.nope_dim);
  });
}

}  // namespace

void attend_expanded(const LatentRows& m, const Mla<Weight>& w, const Pass& pass) {
  const ModelConfig& c = pass.model.config;
  constexpr int64_t most_floats = 16 << 20;
  const bool integers = m.cache.type == DType::i8;
  const int64_t length = stored_rows(m), width = c.nope_dim + (integers ? 0 : c.rope_dim) + c.v_dim;
  const int64_t together = std::clamp<int64_t>(most_floats / (length * width), 1, c.heads);
  const Mat<float> q = pass.s.q.rows_from(m.slice.first_row, m.slice.rows);
  const Mat<float> out = pass.s.heads.rows_from(m.slice.first_row, m.slice.rows);
  const Mat<float> latents = gather_latents(m, c, pass.s.latents);
  pass.s.expanded.resize(size_t(length * together * width));
  std::vector<CachePage> pages = m.pages;

  for (int64_t head = 0; head < c.heads; head += together) {
    const int64_t count = std::min(together, c.heads - head);
    const Mat<float> expanded{pass.s.expanded.data(), length, count * width, count * width};
    expand(expanded, latents, w.kv_up, head, count, width, c);
    adapt_expanded(expanded, latents, adapter_of(m.slice, w.kv_up), head, count, width, pass);
    AttendArgs args{.out = out.cols_from(head * c.v_dim, count * c.v_dim),
                    .q = q.cols_from(head * c.q_dim(), count * c.q_dim()),
                    .cache = {integers ? DType::i8 : DType::f32, pages, expanded.stride},
                    .position = m.slice.position,
                    .heads = count,
                    .kv_heads = count,
                    .key_dim = c.q_dim(),
                    .value_dim = c.v_dim,
                    .key_offset = 0,
                    .key_step = width,
                    .value_offset = c.q_dim(),
                    .value_step = width,
                    .scale = c.attention_scale,
                    .mask = m.mask,
                    .selected = m.selected()};
    const std::byte* data = reinterpret_cast<const std::byte*>(expanded.data);
    int64_t page_bytes = bytes_of(DType::f32, CacheRows::page_rows * expanded.stride);
    if (integers) {
      pack_pages(expanded, count, c, pass.s.expanded_pages);
      args.value_offset = part_bytes(c.nope_dim);
      args.key_step = args.value_step = part_bytes(c.nope_dim) + part_bytes(c.v_dim);
      args.rotated_pages = m.pages;
      args.rotated_dim = c.rope_dim;
      args.rotated_offset = LatentColumns(c, DType::i8).rotated;
      data = pass.s.expanded_pages.data();
      page_bytes = count * args.key_step;
    } else {
      copy_rotated(expanded, latents, count, width, c);
    }
    for (size_t i = 0; i < pages.size(); ++i) pages[i].data = data + int64_t(i) * page_bytes;
    pass.lap(Phase::latent);
    attend({&args, 1});
    pass.lap(Phase::attention);
  }
}

}  // namespace hadal
