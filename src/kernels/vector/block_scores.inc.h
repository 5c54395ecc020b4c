// Which blocks of keys are worth a query's while, for every vector level; included after attention.inc.h, whose scores these are.

template <class T>
struct BlockScoresRoom {
  Room room;
  float *q, *score, *of_head, *best;  // the last two [blocks][64 queries]
  BlockScoresRoom(const AttentionArgs<T>& a, void* scratch) : room(scratch) {
    const int64_t blocks = (a.keys + block_rows - 1) / block_rows;
    q = room.units(units_of<UnitsOf<T>>(a.dim) * block_rows);
    score = room.units(block_rows * block_rows);
    of_head = room.units(blocks * block_rows), best = room.units(blocks * block_rows);
  }
};

template <class T>
int64_t block_scores_scratch(const AttentionArgs<T>& a) {
  return BlockScoresRoom<T>(a, nullptr).room.bytes;
}

// best [64 queries]: the highest of the scores [keys][64] that a query sees.
template <bool partial>
void best_of_tile(const Block& block, int64_t keys, const float* score, float* best) {
  for (int64_t q = 0; q < padded(block.count); q += width) {
    Vec most = set(-__builtin_inff());
    for (int64_t k = 0; k < keys; ++k) {
      Vec s = Whole{}.load(score + k * block_rows + q);
      if (partial) s = where_bit(block.words[k / 32] + q, uint32_t(1) << k % 32, s, set(-__builtin_inff()));
      most = max(most, s);
    }
    Whole{}.store(best + q, most);
  }
}

// best [blocks][64 queries] rises to what one head's best of each block are, less its best of all.
INLINE void join_head(float* best, const float* of_head, int64_t blocks) {
  for (int64_t q = 0; q < block_rows; q += width) {
    Vec most = set(nothing_seen);
    for (int64_t b = 0; b < blocks; ++b) most = max(most, Whole{}.load(of_head + b * block_rows + q));
    for (int64_t b = 0; b < blocks; ++b) {
      float* to = best + b * block_rows + q;
      Whole{}.store(to, max(Whole{}.load(to), Whole{}.load(of_head + b * block_rows + q) - most));
    }
  }
}

template <class T>
void block_scores(const AttentionArgs<T>& a, float* best, int64_t task, void* scratch) {
  const Task<T> at(a, task);
  const BlockScoresRoom<T> room(a, scratch);
  const int64_t blocks = at.visible.blocks;
  const auto nothing = [&](float* x) ALWAYS_INLINE {
    for (int64_t i = 0; i < blocks * block_rows; ++i) x[i] = -__builtin_inff();
  };
  for (int64_t first = 0; first < a.queries; first += block_rows) {
    Block block{at.visible, first, a.queries - first < block_rows ? a.queries - first : block_rows, {}};
    nothing(room.best);
    for (int64_t head = at.kv_head * at.group; head < (at.kv_head + 1) * at.group; ++head) {
      pack_columns<UnitsOf<T>>(room.q, row_of(a.q, at.batch, first, head), a.q.time, block.count, a.dim);
      nothing(room.of_head);
      block.each_block([&](int64_t index, int64_t keys, bool partial) {
        score_block(room.score, a.k, room.q, a.dim, at, index, keys, block.count);
        (partial ? best_of_tile<true> : best_of_tile<false>)(block, keys, room.score, room.of_head + index * block_rows);
      });
      join_head(room.best, room.of_head, blocks);
    }
    for (int64_t i = 0; i < block.count; ++i)
      for (int64_t b = 0; b < blocks; ++b) best[(task * a.queries + first + i) * blocks + b] = room.best[b * block_rows + i] * a.scale;
  }
}
