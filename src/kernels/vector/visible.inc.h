// Which keys of a block of 64 a query sees in training; included inside the anonymous namespace of every level, scalar too.

constexpr int64_t block_rows = 64;  // queries and keys are taken in blocks of so many

template <class T>
inline T* row_of(const Heads<T>& x, int64_t b, int64_t t, int64_t h) {
  return x.data + b * x.batch + t * x.time + h * x.head;
}

inline uint64_t bits_below(int64_t count) { return count <= 0 ? 0 : count >= 64 ? ~uint64_t(0) : (uint64_t(1) << count) - 1; }

struct Visible {  // of one batch and kv head
  AttentionMask mask;
  int64_t query_offset, keys, blocks;
  const uint64_t* words;  // of the first query; null: all

  // Bit i for key 64 * block + i, as query t sees it.
  inline uint64_t of(int64_t t, int64_t block) const {
    const int64_t first = block * block_rows, own = query_offset + t;
    uint64_t seen = bits_below((own + 1 < keys ? own + 1 : keys) - first);
    if (mask.window > 0) seen &= ~bits_below(own - mask.window + 1 - first) | bits_below(mask.sinks - first);
    return words ? seen & words[t / mask.selected_rows * blocks + block] : seen;
  }
};

template <class T>
inline Visible visible_of(const AttentionArgs<T>& a, int64_t batch, int64_t kv_head) {
  const int64_t blocks = (a.keys + block_rows - 1) / block_rows, heads = a.mask.selected_heads;
  const int64_t rows = (a.queries + a.mask.selected_rows - 1) / a.mask.selected_rows;
  const int64_t head = batch * heads + (heads > 1 ? kv_head : 0);
  return {a.mask, a.query_offset, a.keys, blocks, a.mask.selected ? a.mask.selected + head * rows * blocks : nullptr};
}
