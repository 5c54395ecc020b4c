// Attention's tasks and blocks of 64 queries by 64 keys, for every vector level; included after visible.inc.h.

struct Block {  // of queries
  Visible visible;
  int64_t first, count;
  alignas(64) uint32_t words[2][block_rows];  // what each query sees of the keys at hand, lower and upper half

  // Whether anybody sees a key of the block; fills words unless all see all of its `keys`.
  INLINE bool look_at(int64_t block, int64_t keys, bool* partial) {
    *partial = false;
    const uint64_t all = bits_below(keys);
    // The first query sees the fewest of the last keys, the last query the fewest of the first.
    if (!visible.words && visible.of(first, block) == all && visible.of(first + count - 1, block) == all) return true;
    uint64_t any = 0, every = all;
    for (int64_t i = 0; i < block_rows; ++i) {
      const uint64_t seen = i < count ? visible.of(first + i, block) : 0;
      words[0][i] = uint32_t(seen), words[1][i] = uint32_t(seen >> 32);
      any |= seen;
      if (i < count) every &= seen;
    }
    *partial = every != all;
    return any != 0;
  }

  // do_block(block, keys, partial) for each block of keys that somebody sees.
  template <class Do>
  INLINE void each_block(Do do_block) {
    const AttentionMask& mask = visible.mask;
    const int64_t own_first = visible.query_offset + first, own_last = own_first + count - 1;
    const int64_t last = own_last < visible.keys ? own_last / block_rows : visible.blocks - 1;
    const int64_t sink_blocks = (mask.sinks + block_rows - 1) / block_rows;
    const int64_t near = mask.window > 0 && own_first >= mask.window ? (own_first - mask.window + 1) / block_rows : 0;
    for (int64_t block = 0; block <= last; ++block) {
      if (block < near && block >= sink_blocks) block = near;
      if (block > last) return;
      const int64_t left = visible.keys - block * block_rows, keys = left < block_rows ? left : block_rows;
      bool partial;
      if (look_at(block, keys, &partial)) do_block(block, keys, partial);
    }
  }
};

template <class T>
struct Task {
  int64_t batch, kv_head, group;
  Visible visible;
  INLINE Task(const AttentionArgs<T>& a, int64_t task)
      : batch(task / a.kv_heads), kv_head(task % a.kv_heads), group(a.heads / a.kv_heads), visible(visible_of(a, batch, kv_head)) {}
  template <class Do>
  INLINE void each_query_block(const AttentionArgs<T>& a, Do do_block) const {
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      for (int64_t first = 0; first < a.queries; first += block_rows) {
        Block block{visible, first, a.queries - first < block_rows ? a.queries - first : block_rows, {}};
        do_block(head, block);
      }
  }
};
