// Attention in its two kinds, grouped-query and multi-head latent. Both append to the cache, then attend to it.
#include <algorithm>
#include <cmath>

#include "infer/latents.h"
#include "infer/parts.h"
#include "infer/slices.h"

namespace hadal {
namespace {

Mat<float> cut(Mat<float> m, int64_t rows) { return m.rows_from(0, rows); }

// The same memory with one head per row; m's rows must follow each other without a gap.
Mat<float> by_head(Mat<float> m, int64_t heads) { return {m.data, m.rows * heads, m.cols / heads, m.cols / heads}; }

}  // namespace

void attention(Mat<float> out, Mat<const float> h, const Gqa<Weight>& w, int64_t layer, const Pass& pass) {
  const ModelConfig& c = pass.model.config;
  const Mat<float> q = cut(pass.s.q, pass.rows), k = cut(pass.s.k, pass.rows), v = cut(pass.s.v, pass.rows);
  const Mat<float> heads = cut(pass.s.heads, pass.rows);
  project({{q, w.q}, {k, w.k}, {v, w.v}}, h, pass);
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
  const HeadColumns columns(c, pass.kv.type());
  for_slices(pass.batch, pass.kv, layer, [&](std::span<const Slice> slices) {
    append(pass.kv, layer, slices, columns.keys, k, c.kv_heads);
    append(pass.kv, layer, slices, columns.values, v, c.kv_heads);
    append_sketches(pass.kv, layer, slices, k, c.kv_heads);
    pass.lap(Phase::append);
    std::vector<std::vector<CachePage>> pages;
    std::vector<std::vector<uint64_t>> words(slices.size());
    std::vector<AttendArgs> segments;
    for (const Slice& slice : slices) {
      pages.push_back(visible_pages(pass.kv, layer, slice));
      segments.push_back({.out = heads.rows_from(slice.first_row, slice.rows),
                          .q = q.rows_from(slice.first_row, slice.rows),
                          .cache = {pass.kv.type(), pages.back(), pass.kv.width()},
                          .position = slice.position,
                          .heads = c.heads,
                          .kv_heads = c.kv_heads,
                          .key_dim = c.head_dim,
                          .value_dim = c.head_dim,
                          .key_offset = columns.keys.offset,
                          .key_step = columns.keys.step,
                          .value_offset = columns.values.offset,
                          .value_step = columns.values.step,
                          .scale = c.attention_scale,
                          .mask = pass.kv.mask(layer),
                          .selected = select_blocks(pass.kv, layer, slice, pages.back(), q.rows_from(slice.first_row, slice.rows), c.heads,
                                                    c.kv_heads, words[segments.size()]),
                          .selected_heads = c.kv_heads});
    }
    attend(segments);
    pass.lap(Phase::attention);
  });
  project({{out, w.o}}, heads, pass);
  if (c.out_bias) add_bias(out, w.o_bias);
  pass.lap(Phase::out);
}

namespace {

// Lightning indexer: its queries and this batch's index keys, both projected already; the keys are appended to the cache.
void prepare_indexer(const Indexer<Weight>& w, int64_t layer, const Pass& pass) {
  const ModelConfig& c = pass.model.config;
  const Mat<float> q = cut(pass.s.index_q, pass.rows), key = cut(pass.s.index_key, pass.rows), weight = cut(pass.s.index_weight, pass.rows);
  layer_norm(key, key, w.key_norm, w.key_norm_bias, c.latent_norm_eps);
  const RopeTables halves{pass.rope.cos, pass.rope.sin, false};  // here, unlike in the attention itself
  rope(q, c.indexer.heads, c.indexer.dim, halves);
  rope(key, 1, c.indexer.dim, halves);
  for_slices(pass.batch, pass.kv, layer, [&](std::span<const Slice> slices) {
    append(pass.kv, layer, slices, {LatentColumns(c, pass.kv.type()).index, 0}, key, 1);
  });
  const float scale = 1.f / std::sqrt(float(c.indexer.heads * c.indexer.dim));
  for (int64_t r = 0; r < weight.rows; ++r)
    for (int64_t i = 0; i < weight.cols; ++i) weight.row(r)[i] *= scale;
}

LatentRows prepare(const Slice& slice, int64_t layer, const Pass& pass) {
  const ModelConfig& c = pass.model.config;
  LatentRows m{slice, visible_pages(pass.kv, layer, slice), {}, pass.kv.mask(layer), {}};
  m.cache = {pass.kv.type(), m.pages, pass.kv.width()};
  if (c.indexer.heads == 0 || slice.position + slice.rows <= c.indexer.keys) return m;
  const int64_t words = int64_t(m.pages.size());
  m.selection.resize(size_t(slice.rows * words));
  select_keys({.selected = {m.selection.data(), slice.rows, words, words},
               .q = pass.s.index_q.rows_from(slice.first_row, slice.rows),
               .head_weights = pass.s.index_weight.rows_from(slice.first_row, slice.rows),
               .cache = m.cache,
               .position = slice.position,
               .heads = c.indexer.heads,
               .dim = c.indexer.dim,
               .offset = LatentColumns(c, pass.kv.type()).index,
               .keys = c.indexer.keys});
  return m;
}

void attend_slices(std::span<const Slice> slices, int64_t layer, const Mla<Weight>& w, const Pass& pass) {
  std::vector<LatentRows> run;  // of slices with few rows, one behind the other
  const auto attend_run = [&] {
    if (!run.empty()) attend_latents(run, layer, w, pass);
    run.clear();
  };
  for (const Slice& slice : slices) {
    if (!run.empty() && run.back().slice.first_row + run.back().slice.rows != slice.first_row) attend_run();
    if (slice.rows >= pass.model.mla_expand_rows && pass.kv.mask(layer).top_blocks == 0) {
      attend_run();
      attend_expanded(prepare(slice, layer, pass), w, pass);
    } else {
      run.push_back(prepare(slice, layer, pass));
    }
  }
  attend_run();
}

}  // namespace

void attention(Mat<float> out, Mat<const float> h, const Mla<Weight>& w, int64_t layer, const Pass& pass) {
  const ModelConfig& c = pass.model.config;
  const Mat<float> q = cut(pass.s.q, pass.rows), q_latent = cut(pass.s.q_latent, pass.rows), kv_latent = cut(pass.s.kv_latent, pass.rows);
  const Indexer<Weight>& indexer = w.indexer;
  if (c.q_rank == 0) {
    project({{q, w.q}, {kv_latent, w.kv_down}}, h, pass);
  } else if (c.indexer.heads == 0) {
    project({{q_latent, w.q_down}, {kv_latent, w.kv_down}}, h, pass);
    rms_norm(q_latent, q_latent, w.q_norm, c.latent_norm_eps);
    project({{q, w.q_up}}, q_latent, pass);
  } else {
    const Mat<float> index_q = cut(pass.s.index_q, pass.rows), index_key = cut(pass.s.index_key, pass.rows);
    project({{q_latent, w.q_down},
             {kv_latent, w.kv_down},
             {index_key, indexer.key},
             {cut(pass.s.index_weight, pass.rows), indexer.head_weights}},
            h, pass);
    rms_norm(q_latent, q_latent, w.q_norm, c.latent_norm_eps);
    project({{q, w.q_up}, {index_q, indexer.q_up}}, q_latent, pass);
  }
  const Mat<float> latent = kv_latent.cols_from(0, c.kv_rank), rotated = kv_latent.cols_from(c.kv_rank, c.rope_dim);
  rms_norm(latent, latent, w.kv_norm, c.latent_norm_eps);
  pass.lap(Phase::qkv);
  rope(q.cols_from(c.nope_dim, q.cols - c.nope_dim), c.heads, c.q_dim(), pass.rope);
  rope(rotated, 1, c.rope_dim, pass.rope);
  pass.lap(Phase::rope);
  if (c.indexer.heads > 0) prepare_indexer(indexer, layer, pass);
  for_slices(pass.batch, pass.kv, layer, [&](std::span<const Slice> slices) {
    append(pass.kv, layer, slices, {0, 0}, latent, 1);
    append(pass.kv, layer, slices, {LatentColumns(c, pass.kv.type()).rotated, 0}, rotated, 1);
    append_sketches(pass.kv, layer, slices, kv_latent, 1);
    pass.lap(Phase::append);
    attend_slices(slices, layer, w, pass);
  });
  project({{out, w.o}}, cut(pass.s.heads, pass.rows), pass);
  pass.lap(Phase::out);
}

}  // namespace hadal
