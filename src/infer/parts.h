// The parts of one block, called by forward().
#pragma once
#include <vector>

#include "infer/forward.h"
#include "ops/attend.h"
#include "ops/ops.h"

namespace hadal {

struct Scratch::Buffers {  // activations; views over one allocation, cut to the batch's rows by rows_from
  Buffers(const ModelConfig& config, int64_t max_rows, int64_t max_wanted);
  Buffer storage;
  Mat<float> x, h, y;                           // residual stream, normed input, branch output: [max_rows, dim]
  Mat<float> q, k, v, q_latent, kv_latent;      // projections
  Mat<float> q_absorbed, latent_out;            // mla on latents: [max_rows, heads * (kv_rank + rope_dim)], [.., heads * kv_rank]
  Mat<float> heads;                             // attention output: [max_rows, heads * value width]
  Mat<float> index_q, index_key, index_weight;  // indexer
  Mat<float> gate, up, router;                  // feed-forward
  Mat<float> cos, sin;                          // of each row's position: [max_rows, rotated pairs]
  Mat<float> joint;                             // draft layer: [next token | hidden state]: [max_rows, 2 * dim]
  Mat<float> last, logits;                      // wanted rows: [max_wanted, dim], [max_wanted, vocab]
  std::vector<float> expanded, latents;         // mla, keys and values of a few heads over the whole context
  std::vector<std::byte> expanded_pages;        // the same as int8
  Route route;
  CodeRoom codes;          // of the rows that packed weights read
  std::vector<float> low;  // products with adapters
  ExpertScratch experts;
};

struct AdapterRows {  // consecutive rows with the same adapter
  const Adapter* adapter;
  int64_t first, rows;
};

struct Pass {  // what every part of one forward pass needs
  const Model& model;
  const Batch& batch;
  KvCache& kv;
  Scratch::Buffers& s;
  int64_t rows;
  RopeTables rope;
  std::vector<AdapterRows> adapters;  // rows without one are in none
  Profile* profile;
  void lap(Phase phase) const {
    if (profile) profile->lap(phase);
  }
};

Pass begin_pass(const Model& model, const Batch& batch, KvCache& kv, Scratch::Buffers& s, Profile* profile);
// Every product of a pass: out = x w^T, and what the adapters of `rows` add to theirs. All read the same x.
void project(std::initializer_list<Product> products, Mat<const float> x, std::span<const AdapterRows> rows, Scratch::Buffers& s);
inline void project(std::initializer_list<Product> products, Mat<const float> x, const Pass& pass) {
  project(products, x, pass.adapters, pass.s);
}

// x += attention, x += feed-forward: one block of the trunk, or of the draft layer. Writes s.h and s.y.
void run_block(Mat<float> x, const Block<Weight>& block, int64_t layer, const Pass& pass);
Mat<float> logits_of(Mat<const float> x, const Weight& norm, const Pass& pass);  // of the wanted rows of x, behind a norm

// out = attention(h), after appending h's keys and values to the cache.
void attention(Mat<float> out, Mat<const float> h, const Gqa<Weight>& w, int64_t layer, const Pass& pass);
void attention(Mat<float> out, Mat<const float> h, const Mla<Weight>& w, int64_t layer, const Pass& pass);
void feed_forward(Mat<float> out, Mat<const float> h, const Mlp<Weight>& w, int64_t layer, const Pass& pass);
void feed_forward(Mat<float> out, Mat<const float> h, const Moe<Weight>& w, int64_t layer, const Pass& pass);
void look_ahead(Mat<const float> x, int64_t layer, const Pass& pass);  // experts on disk: those that `layer` will probably use are read now

}  // namespace hadal
