#include "infer/forward.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "infer/parts.h"

namespace hadal {

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

Mat<float> logits_of(Mat<const float> x, const Weight& norm, const Model& model, std::span<const int32_t> wanted, Scratch::Buffers& s) {
  const Mat<float> last = s.last.rows_from(0, int64_t(wanted.size())), logits = s.logits.rows_from(0, int64_t(wanted.size()));
  for (size_t i = 0; i < wanted.size(); ++i) std::copy_n(x.row(wanted[i]), x.cols, last.row(int64_t(i)));
  rms_norm(last, last, norm, model.config.norm_eps);
  const Weight& head = model.config.tied_head ? model.params.embed : model.params.head;
  matmul(logits, input_for({&head}, last, s.codes), head);
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
  const Mat<float> x = s.x.rows_from(0, rows), cos = s.cos.rows_from(0, rows), sin = s.sin.rows_from(0, rows);
  fill_rope(cos, sin, model, batch);
  const Pass pass{model, batch, kv, s, rows, {cos, sin, model.config.rope.layout == RopeLayout::pairs}, profile};

  embed(x, model.params.embed, batch.tokens);
  pass.lap(Phase::embed);
  for (int64_t layer = 0; layer < model.config.layers; ++layer) run_block(x, model.params.blocks[size_t(layer)], layer, pass);
  for (const Segment& segment : batch.segments) segment.kv->length = segment.position + segment.rows;
  const Mat<float> logits = logits_of(x, model.params.norm, model, batch.wanted, s);
  pass.lap(Phase::head);
  return logits;
}

}  // namespace hadal
