// Multi-head latent attention's two algorithms over the same cached rows [latent | rotated key | index key].
#pragma once
#include <vector>

#include "infer/parts.h"
#include "infer/slices.h"

namespace hadal {

// Offsets of the three within a row, in elements, or, i8, of their parts within a page, in bytes.
struct LatentColumns {
  int64_t rotated, index;
  LatentColumns(const ModelConfig& c, DType type)
      : rotated(type == DType::i8 ? part_bytes(c.kv_rank) : c.kv_rank),
        index(type == DType::i8 ? rotated + part_bytes(c.rope_dim) : rotated + c.rope_dim) {}
};

struct LatentRows {  // one sequence's rows in one layer
  Slice slice;
  std::vector<CachePage> pages;
  CacheRows cache;
  Mask mask;
  std::vector<uint64_t> selection;  // [rows, pages] words; empty: every key
  Mat<const uint64_t> selected() const {
    const int64_t words = int64_t(pages.size());
    return selection.empty() ? Mat<const uint64_t>{} : Mat<const uint64_t>{selection.data(), slice.rows, words, words};
  }
};

// Few rows: queries go into the latent space and attend to the latents as they lie in the cache (the published code's "absorb").
// `run`: slices whose rows follow each other. Both read pass.s.q and write pass.s.heads.
void attend_latents(std::span<const LatentRows> run, int64_t layer, const Mla<Weight>& w, const Pass& pass);
// Many rows: keys and values are expanded from the latents, a few heads at a time, and attended to as if they had been cached.
void attend_expanded(const LatentRows& rows, const Mla<Weight>& w, const Pass& pass);

}  // namespace hadal
