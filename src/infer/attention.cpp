// Attention in its two kinds, grouped-query and multi-head latent. Both append to the cache, then attend to it.
#include <algorithm>
#include <cmath>

#include "infer/parts.h"

namespace hadal {
namespace {

std::vector<const std::byte*> pages_of(const KvCache& kv, const Segment& segment, int64_t layer) {
  std::vector<const std::byte*> pages;
  for (const int32_t page : segment.kv->pages) pages.push_back(kv.page(layer, page));
  return pages;
}

// Writes `values` [rows, n] of the batch into columns first_col .. of the cached rows.
void append(const Pass& pass, int64_t layer, int64_t first_col, Mat<const float> values) {
  const KvCache& kv = pass.kv;
  for (const Segment& segment : pass.batch.segments)
    for (int64_t r = 0; r < segment.rows; ++r) {
      const int64_t row = segment.position + r;
      std::byte* to = kv.page(layer, segment.kv->pages[size_t(row / KvCache::page_rows)]) +
                      bytes_of(kv.type(), row % KvCache::page_rows * kv.width() + first_col);
      store_row(to, kv.type(), values.row(segment.first_row + r), values.cols);
    }
}

Mat<float> cut(Mat<float> m, int64_t rows) { return m.rows_from(0, rows); }

// The same memory with one head per row; m's rows must follow each other without a gap.
Mat<float> by_head(Mat<float> m, int64_t heads) { return {m.data, m.rows * heads, m.cols / heads, m.cols / heads}; }

}  // namespace

void attention(Mat<float> out, Mat<const float> h, const Gqa<Weight>& w, int64_t layer, const Pass& pass) {
  const ModelConfig& c = pass.model.config;
  const Mat<float> q = cut(pass.s.q, pass.rows), k = cut(pass.s.k, pass.rows), v = cut(pass.s.v, pass.rows);
  const Mat<float> heads = cut(pass.s.heads, pass.rows);
  matmul(q, h, w.q);
  matmul(k, h, w.k);
  matmul(v, h, w.v);
  if (c.qkv_bias) {
    add_bias(q, w.q_bias);
    add_bias(k, w.k_bias);
    add_bias(v, w.v_bias);
  }
  if (c.qk_norm) {
    rms_norm(by_head(q, c.heads), by_head(q, c.heads), w.q_norm, c.norm_eps);
    rms_norm(by_head(k, c.kv_heads), by_head(k, c.kv_heads), w.k_norm, c.norm_eps);
  }
  pass.lap(Phase::qkv);
  rope(q, c.heads, c.head_dim, pass.rope);
  rope(k, c.kv_heads, c.head_dim, pass.rope);
  pass.lap(Phase::rope);
  append(pass, layer, 0, k);
  append(pass, layer, k.cols, v);
  pass.lap(Phase::append);

  std::vector<std::vector<const std::byte*>> pages;
  std::vector<AttendArgs> segments;
  for (const Segment& segment : pass.batch.segments) {
    pages.push_back(pages_of(pass.kv, segment, layer));
    segments.push_back({.out = heads.rows_from(segment.first_row, segment.rows),
                        .q = q.rows_from(segment.first_row, segment.rows),
                        .cache = {pass.kv.type(), pages.back(), pass.kv.width()},
                        .position = segment.position,
                        .heads = c.heads,
                        .kv_heads = c.kv_heads,
                        .key_dim = c.head_dim,
                        .value_dim = c.head_dim,
                        .key_offset = 0,
                        .key_step = c.head_dim,
                        .value_offset = k.cols,
                        .value_step = c.head_dim,
                        .scale = c.attention_scale,
                        .selected = {}});
  }
  attend(segments);
  pass.lap(Phase::attention);
  matmul(out, heads, w.o);
  if (c.out_bias) add_bias(out, w.o_bias);
  pass.lap(Phase::out);
}

namespace {

struct MlaSegment {  // one sequence's rows in one layer
  const Segment* segment;
  std::vector<const std::byte*> pages;
  CacheRows cache;                  // [latent | rotated key | index key] per row
  std::vector<uint64_t> selection;  // [rows, pages] words; empty: every key
  Mat<const uint64_t> selected() const {
    const int64_t words = int64_t(pages.size());
    return selection.empty() ? Mat<const uint64_t>{} : Mat<const uint64_t>{selection.data(), segment->rows, words, words};
  }
};

// Few rows: queries go into the latent space and attend to the latents as they lie in the cache (the published code's "absorb").
// `run`: segments whose rows follow each other.
void attend_latents(std::span<const MlaSegment> run, int64_t layer, const Mla<Weight>& w, const Pass& pass) {
  const ModelConfig& c = pass.model.config;
  const int64_t key_dim = c.kv_rank + c.rope_dim, first = run.front().segment->first_row;
  const int64_t rows = run.back().segment->first_row + run.back().segment->rows - first;
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
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t head = 0; head < c.heads; ++head)
      std::copy_n(q.row(r) + head * c.q_dim() + c.nope_dim, c.rope_dim, absorbed.row(r) + head * key_dim + c.kv_rank);
  std::vector<AttendArgs> segments;
  for (const MlaSegment& m : run)
    segments.push_back({.out = pass.s.latent_out.rows_from(m.segment->first_row, m.segment->rows),
                        .q = pass.s.q_absorbed.rows_from(m.segment->first_row, m.segment->rows),
                        .cache = m.cache,
                        .position = m.segment->position,
                        .heads = c.heads,
                        .kv_heads = 1,
                        .key_dim = key_dim,
                        .value_dim = c.kv_rank,
                        .key_offset = 0,
                        .key_step = 0,
                        .value_offset = 0,
                        .value_step = 0,
                        .scale = c.attention_scale,
                        .selected = m.selected()});
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
  pass.lap(Phase::latent);
}

// The cached rows of a sequence as floats: [length, kv_rank + rope_dim].
Mat<float> gather_latents(const CacheRows& cache, int64_t length, int64_t cols, std::vector<float>& storage) {
  storage.resize(size_t(length * cols));
  for (int64_t i = 0; i < length; ++i) {
    const std::byte* row = cache.pages[size_t(i / CacheRows::page_rows)] + bytes_of(cache.type, i % CacheRows::page_rows * cache.width);
    load_row(storage.data() + i * cols, cache.type, row, cols);
  }
  return {storage.data(), length, cols, cols};
}

// Many rows: keys and values are expanded from the latents, a few heads at a time, and attended to as if they had been cached.
void attend_expanded(const MlaSegment& m, const Mla<Weight>& w, const Pass& pass) {
  const ModelConfig& c = pass.model.config;
  constexpr int64_t most_floats = 16 << 20;
  const int64_t length = m.segment->position + m.segment->rows, head_width = c.q_dim() + c.v_dim;
  const int64_t together = std::clamp<int64_t>(most_floats / (length * head_width), 1, c.heads);
  const Mat<float> q = pass.s.q.rows_from(m.segment->first_row, m.segment->rows);
  const Mat<float> latents = gather_latents(m.cache, length, c.kv_rank + c.rope_dim, pass.s.latents);
  std::vector<float>& storage = pass.s.expanded;
  storage.resize(size_t(length * together * head_width));

  for (int64_t head = 0; head < c.heads; head += together) {
    const int64_t count = std::min(together, c.heads - head);
    const Mat<float> expanded{storage.data(), length, count * head_width, count * head_width};  // per head [key | rotated key | value]
    HeadProducts keys{.out = expanded,
                      .x = latents,
                      .w = w.kv_up,
                      .heads = count,
                      .out_step = head_width,
                      .x_step = 0,
                      .first_row = head * (c.nope_dim + c.v_dim),
                      .row_step = c.nope_dim + c.v_dim,
                      .rows_per_head = c.nope_dim};
    matmul_heads(keys);
    HeadProducts values{.out = expanded.cols_from(c.q_dim(), expanded.cols - c.q_dim()),
                        .x = keys.x,
                        .w = w.kv_up,
                        .heads = count,
                        .out_step = head_width,
                        .x_step = 0,
                        .first_row = keys.first_row + c.nope_dim,
                        .row_step = keys.row_step,
                        .rows_per_head = c.v_dim};
    matmul_heads(values);
    for (int64_t i = 0; i < length; ++i)
      for (int64_t j = 0; j < count; ++j)
        std::copy_n(latents.row(i) + c.kv_rank, c.rope_dim, expanded.row(i) + j * head_width + c.nope_dim);

    std::vector<const std::byte*> pages;
    for (int64_t i = 0; i < length; i += CacheRows::page_rows) pages.push_back(reinterpret_cast<const std::byte*>(expanded.row(i)));
    const Mat<float> out = pass.s.heads.rows_from(m.segment->first_row, m.segment->rows);
    const AttendArgs args{.out = out.cols_from(head * c.v_dim, count * c.v_dim),
                          .q = q.cols_from(head * c.q_dim(), count * c.q_dim()),
                          .cache = {DType::f32, pages, expanded.stride},
                          .position = m.segment->position,
                          .heads = count,
                          .kv_heads = count,
                          .key_dim = c.q_dim(),
                          .value_dim = c.v_dim,
                          .key_offset = 0,
                          .key_step = head_width,
                          .value_offset = c.q_dim(),
                          .value_step = head_width,
                          .scale = c.attention_scale,
                          .selected = m.selected()};
    pass.lap(Phase::latent);
    attend({&args, 1});
    pass.lap(Phase::attention);
  }
}

// Lightning indexer: its queries and this batch's index keys, the latter appended to the cache.
void prepare_indexer(Mat<const float> h, Mat<const float> q_latent, const Indexer<Weight>& w, int64_t layer, const Pass& pass) {
  const ModelConfig& c = pass.model.config;
  const Mat<float> q = cut(pass.s.index_q, pass.rows), key = cut(pass.s.index_key, pass.rows), weight = cut(pass.s.index_weight, pass.rows);
  matmul(q, q_latent, w.q_up);
  matmul(key, h, w.key);
  layer_norm(key, key, w.key_norm, w.key_norm_bias, c.latent_norm_eps);
  const RopeTables halves{pass.rope.cos, pass.rope.sin, false};  // here, unlike in the attention itself
  rope(q, c.indexer.heads, c.indexer.dim, halves);
  rope(key, 1, c.indexer.dim, halves);
  append(pass, layer, c.kv_rank + c.rope_dim, key);
  matmul(weight, h, w.head_weights);
  const float scale = 1.f / std::sqrt(float(c.indexer.heads * c.indexer.dim));
  for (int64_t r = 0; r < weight.rows; ++r)
    for (int64_t i = 0; i < weight.cols; ++i) weight.row(r)[i] *= scale;
}

MlaSegment prepare(const Segment& segment, int64_t layer, const Pass& pass) {
  const ModelConfig& c = pass.model.config;
  MlaSegment m{&segment, pages_of(pass.kv, segment, layer), {}, {}};
  m.cache = {pass.kv.type(), m.pages, pass.kv.width()};
  if (c.indexer.heads == 0 || segment.position + segment.rows <= c.indexer.keys) return m;
  const int64_t words = int64_t(m.pages.size());
  m.selection.resize(size_t(segment.rows * words));
  select_keys({.selected = {m.selection.data(), segment.rows, words, words},
               .q = pass.s.index_q.rows_from(segment.first_row, segment.rows),
               .head_weights = pass.s.index_weight.rows_from(segment.first_row, segment.rows),
               .cache = m.cache,
               .position = segment.position,
               .heads = c.indexer.heads,
               .dim = c.indexer.dim,
               .offset = c.kv_rank + c.rope_dim,
               .keys = c.indexer.keys});
  return m;
}

}  // namespace

void attention(Mat<float> out, Mat<const float> h, const Mla<Weight>& w, int64_t layer, const Pass& pass) {
  const ModelConfig& c = pass.model.config;
  const Mat<float> q = cut(pass.s.q, pass.rows), q_latent = cut(pass.s.q_latent, pass.rows), kv_latent = cut(pass.s.kv_latent, pass.rows);
  if (c.q_rank == 0) {
    matmul(q, h, w.q);
  } else {
    matmul(q_latent, h, w.q_down);
    rms_norm(q_latent, q_latent, w.q_norm, c.latent_norm_eps);
    matmul(q, q_latent, w.q_up);
  }
  matmul(kv_latent, h, w.kv_down);
  const Mat<float> latent = kv_latent.cols_from(0, c.kv_rank);
  rms_norm(latent, latent, w.kv_norm, c.latent_norm_eps);
  pass.lap(Phase::qkv);
  rope(q.cols_from(c.nope_dim, q.cols - c.nope_dim), c.heads, c.q_dim(), pass.rope);
  rope(kv_latent.cols_from(c.kv_rank, c.rope_dim), 1, c.rope_dim, pass.rope);
  pass.lap(Phase::rope);
  append(pass, layer, 0, kv_latent);
  pass.lap(Phase::append);
  if (c.indexer.heads > 0) prepare_indexer(h, q_latent, w.indexer, layer, pass);
  pass.lap(Phase::attention);

  std::vector<MlaSegment> run;  // of segments with few rows
  const auto attend_run = [&] {
    if (!run.empty()) attend_latents(run, layer, w, pass);
    run.clear();
  };
  for (const Segment& segment : pass.batch.segments) {
    if (segment.rows >= pass.model.mla_expand_rows) {
      attend_run();
      attend_expanded(prepare(segment, layer, pass), w, pass);
    } else {
      run.push_back(prepare(segment, layer, pass));
    }
  }
  attend_run();
  matmul(out, cut(pass.s.heads, pass.rows), w.o);
  pass.lap(Phase::out);
}

}  // namespace hadal
