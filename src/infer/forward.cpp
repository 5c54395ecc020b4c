#include "infer/forward.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "infer/adapter.h"
#include "infer/parts.h"

namespace hadal {
namespace {

// The angle is rounded to float before its cosine is taken, as the published code does.
void fill_rope(Mat<float> cos, Mat<float> sin, const Model& model, const Batch& batch) {
  const float magnitude = model.config.rope.magnitude;
  for (const Segment& segment : batch.segments)
    for (int64_t r = 0; r < segment.rows; ++r)
      for (size_t i = 0; i < model.rope_frequency.size(); ++i) {
        const float angle = float(segment.position + r) * model.rope_frequency[i];
        cos.row(segment.first_row + r)[i] = float(std::cos(double(angle))) * magnitude;
        sin.row(segment.first_row + r)[i] = float(std::sin(double(angle))) * magnitude;
      }
}

void append_rows(std::vector<AdapterRows>& to, const Adapter* adapter, int64_t first, int64_t rows) {
  if (!adapter) return;
  if (!to.empty() && to.back().adapter == adapter && to.back().first + to.back().rows == first)
    to.back().rows += rows;
  else
    to.push_back({adapter, first, rows});
}

// The same of the wanted rows, which stand behind each other in another matrix.
std::vector<AdapterRows> adapters_of_wanted(const Pass& pass) {
  std::vector<AdapterRows> rows;
  for (size_t i = 0; i < pass.batch.wanted.size() && !pass.adapters.empty(); ++i)
    for (const AdapterRows& a : pass.adapters)
      if (const int64_t at = pass.batch.wanted[i] - a.first; at >= 0 && at < a.rows) append_rows(rows, a.adapter, int64_t(i), 1);
  return rows;
}

}  // namespace

Pass begin_pass(const Model& model, const Batch& batch, KvCache& kv, Scratch::Buffers& s, Profile* profile) {
  const int64_t rows = int64_t(batch.tokens.size());
  const Mat<float> cos = s.cos.rows_from(0, rows), sin = s.sin.rows_from(0, rows);
  fill_rope(cos, sin, model, batch);
  std::vector<AdapterRows> adapters;
  for (const Segment& segment : batch.segments) append_rows(adapters, segment.adapter, segment.first_row, segment.rows);
  std::ranges::stable_sort(adapters, {}, &AdapterRows::adapter);  // one's matrices are still in the cache for its next rows
  return {model, batch, kv, s, rows, {cos, sin, model.config.rope.layout == RopeLayout::pairs}, std::move(adapters), profile};
}

void project(std::initializer_list<Product> products, Mat<const float> x, std::span<const AdapterRows> rows, Scratch::Buffers& s) {
  matmul(products, input_for(products, x, s.codes));
  std::vector<Addition> additions;
  for (const Product& p : products)
    for (const AdapterRows& a : rows)
      if (const LowRank w = a.adapter->beside(p.w))
        additions.push_back({p.out.rows_from(a.first, a.rows), x.rows_from(a.first, a.rows), w});
  add_low_rank(additions, s.low);
}

Mat<float> logits_of(Mat<const float> x, const Weight& norm, const Pass& pass) {
  const std::span<const int32_t> wanted = pass.batch.wanted;
  const Mat<float> last = pass.s.last.rows_from(0, int64_t(wanted.size())), logits = pass.s.logits.rows_from(0, int64_t(wanted.size()));
  for (size_t i = 0; i < wanted.size(); ++i) std::copy_n(x.row(wanted[i]), x.cols, last.row(int64_t(i)));
  rms_norm(last, last, norm, pass.model.config.norm_eps);
  const Params<Weight>& params = pass.model.params;
  project({{logits, pass.model.config.tied_head ? params.embed : params.head}}, last, adapters_of_wanted(pass), pass.s);
  return logits;
}

void run_block(Mat<float> x, const Block<Weight>& block, int64_t layer, const Pass& pass) {
  const Mat<float> h = pass.s.h.rows_from(0, pass.rows), y = pass.s.y.rows_from(0, pass.rows);
  const float eps = pass.model.config.norm_eps;
  rms_norm(h, x, block.attn_norm, eps);
  pass.lap(Phase::norm);
  std::visit([&](const auto& w) { attention(y, h, w, layer, pass); }, block.attn);
  add(x, y);
  look_ahead(x, layer + 1, pass);
  rms_norm(h, x, block.ffn_norm, eps);
  pass.lap(Phase::norm);
  std::visit([&](const auto& w) { feed_forward(y, h, w, layer, pass); }, block.ffn);
  add(x, y);
}

Mat<float> forward(const Model& model, const Batch& batch, KvCache& kv, Scratch& scratch, Profile* profile) {
  Scratch::Buffers& s = *scratch;
  if (profile) profile->begin();
  const int64_t rows = int64_t(batch.tokens.size());
  CHECK(rows <= s.x.rows && int64_t(batch.wanted.size()) <= s.last.rows);
  const Pass pass = begin_pass(model, batch, kv, s, profile);
  const Mat<float> x = s.x.rows_from(0, rows);
  embed(x, model.params.embed, batch.tokens);
  pass.lap(Phase::embed);
  for (int64_t layer = 0; layer < model.config.layers; ++layer) run_block(x, model.params.blocks[size_t(layer)], layer, pass);
  for (const Segment& segment : batch.segments) segment.kv->length = segment.position + segment.rows;
  const Mat<float> logits = logits_of(x, model.params.norm, pass);
  pass.lap(Phase::head);
  return logits;
}

Mat<float> normed(const Model& model, Scratch& scratch, int64_t first_row, int64_t rows) {
  Scratch::Buffers& s = *scratch;
  const Mat<float> h = s.h.rows_from(0, rows);
  rms_norm(h, s.x.rows_from(first_row, rows), model.params.norm, model.config.norm_eps);
  return h;
}

}  // namespace hadal
