#include "infer/draft_layer.h"

#include <algorithm>

#include "core/error.h"
#include "infer/parts.h"

namespace hadal {

Mat<float> forward_draft(const Model& model, const Batch& batch, std::span<const int32_t> hidden, KvCache& kv, Scratch& scratch) {
  Scratch::Buffers& s = *scratch;
  const ModelConfig& c = model.config;
  const int64_t rows = int64_t(batch.tokens.size());
  CHECK(rows == int64_t(hidden.size()) && rows <= s.joint.rows && model.params.drafts.size() == 1);
  const Draft<Weight>& draft = model.params.drafts[0];
  const Mat<float> joint = s.joint.rows_from(0, rows), token = joint.cols_from(0, c.dim), state = joint.cols_from(c.dim, c.dim);
  embed(token, model.params.embed, batch.tokens);
  rms_norm(token, token, draft.token_norm, c.norm_eps);
  for (int64_t r = 0; r < rows; ++r) std::copy_n(s.x.row(hidden[size_t(r)]), c.dim, state.row(r));
  rms_norm(state, state, model.params.norm, c.norm_eps);
  rms_norm(state, state, draft.hidden_norm, c.norm_eps);

  const Pass pass = begin_pass(model, batch, kv, s, nullptr);
  const Mat<float> x = s.x.rows_from(0, rows);
  project({{x, draft.joint}}, joint, pass);
  run_block(x, draft.block, c.layers, pass);
  return logits_of(x, draft.norm, pass);
}

}  // namespace hadal
