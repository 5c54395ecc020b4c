#include "infer/shift.h"

#include <algorithm>
#include <cmath>

#include "core/pool.h"
#include "infer/latents.h"
#include "ops/ops.h"

namespace hadal {
namespace {

struct KeyPart {  // turned columns of a cached row
  Columns at;
  int64_t heads, dims;
  bool pairs;
};

std::vector<KeyPart> turned_parts(const ModelConfig& c, DType type) {
  const bool pairs = c.rope.layout == RopeLayout::pairs;
  if (c.attention == AttentionKind::gqa) return {{HeadColumns(c, type).keys, c.kv_heads, c.head_dim, pairs}};
  const LatentColumns columns(c, type);
  std::vector<KeyPart> parts{{{columns.rotated, 0}, 1, c.rope_dim, pairs}};
  if (c.indexer.heads > 0) parts.push_back({{columns.index, 0}, 1, c.indexer.dim, false});
  return parts;
}

// What sketches are made of.
Mat<float> sketched(const ModelConfig& c, const KvCache& kv, int64_t layer, const Slice& slice, Mat<float> keys, std::vector<float>& room) {
  if (kv.mask(layer).top_blocks == 0 || c.attention == AttentionKind::gqa) return keys;
  const int64_t cols = c.kv_rank + c.rope_dim;
  room.resize(size_t(slice.rows * cols));
  const Mat<float> all{room.data(), slice.rows, cols, cols};
  read_back(all.cols_from(0, c.kv_rank), kv, layer, slice, {0, 0}, 1);
  read_back(all.cols_from(c.kv_rank, c.rope_dim), kv, layer, slice, {LatentColumns(c, kv.type()).rotated, 0}, 1);
  return all;
}

}  // namespace

void shift(const Model& model, KvCache& kv, KvRows& sequence, int64_t first, int64_t count) {
  kv.drop(sequence, first, count);
  const ModelConfig& c = model.config;
  constexpr int64_t together = 16 * KvCache::page_rows;
  const int64_t half = int64_t(model.rope_frequency.size());
  std::vector<float> cos(size_t(together * half)), sin(size_t(together * half)), room, sketch_room;
  for (int64_t i = 0; i < together * half; ++i) {
    const double angle = -double(count * KvCache::page_rows) * double(model.rope_frequency[size_t(i % half)]);
    cos[size_t(i)] = float(std::cos(angle)), sin[size_t(i)] = float(std::sin(angle));
  }
  for (int64_t layer = 0; layer < c.cached_layers(); ++layer)
    for (const KeyPart& part : turned_parts(c, kv.type()))
      for (int64_t at = std::max(first, kv.first_kept(layer, sequence)) * KvCache::page_rows; at < sequence.length; at += together) {
        const Slice slice{&sequence, 0, std::min(together, sequence.length - at), at};
        const int64_t cols = part.heads * part.dims;
        room.resize(size_t(slice.rows * cols));
        const Mat<float> keys{room.data(), slice.rows, cols, cols};
        read_back(keys, kv, layer, slice, part.at, part.heads);
        rope(keys, part.heads, part.dims, {{cos.data(), slice.rows, half, half}, {sin.data(), slice.rows, half, half}, part.pairs});
        append(kv, layer, {&slice, 1}, part.at, keys, part.heads);
        append_sketches(kv, layer, {&slice, 1}, sketched(c, kv, layer, slice, keys, sketch_room), part.heads);
      }
}

}  // namespace hadal
