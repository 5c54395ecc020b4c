// How much room one forward pass needs.
#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "infer/parts.h"

namespace hadal {

Scratch::Buffers::Buffers(const ModelConfig& c, int64_t max_rows, int64_t max_wanted) {
  std::vector<std::pair<Mat<float>*, int64_t>> parts;  // where to put each view, and its first float
  int64_t floats = 0;
  const auto want = [&](Mat<float>& m, int64_t rows, int64_t cols) {
    m = {nullptr, rows, cols, cols};
    parts.push_back({&m, floats});
    floats += (rows * cols + 15) / 16 * 16;
  };
  const bool mla = c.attention == AttentionKind::mla;
  for (Mat<float>* m : {&x, &h, &y}) want(*m, max_rows, c.dim);
  want(q, max_rows, c.heads * c.q_dim());
  want(heads, max_rows, c.heads * (mla ? c.v_dim : c.head_dim));
  if (mla) {
    want(q_latent, max_rows, c.q_rank);
    want(kv_latent, max_rows, c.kv_rank + c.rope_dim);
    want(q_absorbed, max_rows, c.heads * (c.kv_rank + c.rope_dim));
    want(latent_out, max_rows, c.heads * c.kv_rank);
    want(index_q, max_rows, c.indexer.heads * c.indexer.dim);
    want(index_key, max_rows, c.indexer.dim);
    want(index_weight, max_rows, c.indexer.heads);
  } else {
    want(k, max_rows, c.kv_heads * c.head_dim);
    want(v, max_rows, c.kv_heads * c.head_dim);
  }
  const int64_t widest = std::max(c.ffn_dim, c.moe.shared * c.moe.expert_dim);
  want(gate, max_rows, widest);
  want(up, max_rows, widest);
  want(router, max_rows, c.moe.experts);
  const int64_t pairs = (mla ? c.rope_dim : c.head_dim) / 2;
  want(cos, max_rows, pairs);
  want(sin, max_rows, pairs);
  want(joint, c.load_draft ? max_rows : 0, 2 * c.dim);
  want(last, max_wanted, c.dim);
  want(logits, max_wanted, c.vocab);
  storage = Buffer(size_t(floats) * sizeof(float), "activations");
  for (const auto& [m, first] : parts) m->data = storage.as<float>() + first;
}

Scratch::Scratch(const ModelConfig& config, int64_t max_rows, int64_t max_wanted)
    : buffers_(std::make_unique<Buffers>(config, max_rows, max_wanted)) {}
Scratch::~Scratch() = default;

}  // namespace hadal
