// The gradients of attention for every vector level; included after attention.inc.h, which tells the idea.

template <class T>
struct BackwardRoom {
  Room room;
  float *q_columns, *dout_columns, *q_rows, *dout_rows;  // packed queries and gradients of a block, for products over columns and over rows
  float *score, *dp, *p, *ds, *ds_pairs, *dq, *lse, *delta;
  float *k, *dk, *dv;  // of all keys
  BackwardRoom(const AttentionArgs<T>& a, void* scratch) : room(scratch) {
    using Units = UnitsOf<T>;
    constexpr int64_t tile = block_rows * block_rows, narrow = tile / Units::values;
    q_columns = room.units(units_of<Units>(a.dim) * block_rows);
    dout_columns = room.units(units_of<Units>(a.value_dim) * block_rows);
    q_rows = room.units(block_rows / Units::values * padded(a.dim));
    dout_rows = room.units(block_rows / Units::values * padded(a.value_dim));
    score = room.units(tile), dp = room.units(tile);
    p = Units::values == 1 ? score : room.units(narrow);
    ds = Units::values == 1 ? dp : room.units(narrow);
    ds_pairs = Units::values == 1 ? dp : room.units(narrow);
    dq = room.units(block_rows * padded(a.dim));
    lse = room.units(block_rows), delta = room.units(block_rows);
    k = room.units(units_of<Units>(a.keys) * padded(a.dim));
    dk = room.units(a.keys * padded(a.dim)), dv = room.units(a.keys * padded(a.value_dim));
  }
};

template <class T>
int64_t attention_backward_scratch(const AttentionArgs<T>& a) {
  return BackwardRoom<T>(a, nullptr).room.bytes;
}

INLINE void clear(float* x, int64_t n) { __builtin_memset(x, 0, size_t(n) * 4); }

// p and ds = scale p (dp - delta) of a block, from scores and dp [keys][64]: rows of the keys with queries as neighbours, and of ds also
// pairs of keys.
template <class T, bool partial>
void gradient_tile(const Block& block, int64_t keys, float scale, const BackwardRoom<T>& room) {
  constexpr int64_t values = UnitsOf<T>::values;
  const Vec to_power = set(scale * log2_of_e), factor = set(scale);
  for (int64_t q = 0; q < padded(block.count); q += width) {
    const Vec lse = Whole{}.load(room.lse + q), delta = Whole{}.load(room.delta + q);
    const auto row = [&](int64_t key, Vec* ds) ALWAYS_INLINE {
      const int64_t at = key * block_rows + q;
      Vec p = exp2(fma(Whole{}.load(room.score + at), to_power, -lse));
      if (partial) p = where_bit(block.words[key / 32] + q, uint32_t(1) << key % 32, p, set(0));
      *ds = p * (Whole{}.load(room.dp + at) - delta) * factor;
      store_narrow(Whole{}, reinterpret_cast<T*>(room.p) + at, p);
      store_narrow(Whole{}, reinterpret_cast<T*>(room.ds) + at, *ds);
    };
    for (int64_t key = 0; key < keys; key += values) {
      Vec even, odd = set(0);
      row(key, &even);
      if constexpr (values == 2) {
        if (key + 1 < keys) row(key + 1, &odd);
        Whole{}.store(room.ds_pairs + key / 2 * block_rows + q, rounded_pair(even, odd));
      }
    }
  }
}

// Packs what the gradients of a block of queries need.
template <class T>
void load_queries(const AttentionGradArgs<T>& g, const Task<T>& at, int64_t head, const Block& block, const BackwardRoom<T>& room) {
  using Units = UnitsOf<T>;
  const AttentionArgs<T>& a = g.forward;
  const T *q = row_of(a.q, at.batch, block.first, head), *dout = row_of(g.dout, at.batch, block.first, head);
  pack_columns<Units>(room.q_columns, q, a.q.time, block.count, a.dim);
  pack_columns<Units>(room.dout_columns, dout, g.dout.time, block.count, a.value_dim);
  pack_rows<Units>(room.q_rows, q, a.q.time, block.count, a.dim);
  pack_rows<Units>(room.dout_rows, dout, g.dout.time, block.count, a.value_dim);
  const float* lse = a.lse + (at.batch * a.heads + head) * a.queries + block.first;
  for (int64_t i = 0; i < block_rows; ++i) {
    const bool sees = i < block.count && lse[i] != -__builtin_inff();
    room.lse[i] = sees ? lse[i] * log2_of_e : __builtin_inff();  // p = 0
    room.delta[i] = 0;
    if (!sees) continue;
    Sum16 sum;
    const T *gradient = dout + i * g.dout.time, *out = row_of(a.out, at.batch, block.first + i, head);
    each_vector(a.value_dim, [&](auto lanes, int64_t d, int part) ALWAYS_INLINE {
      sum.part[part] = fma(load_wide(lanes, gradient + d), load_wide(lanes, out + d), sum.part[part]);
    });
    room.delta[i] = total(sum.part);
  }
}

template <class T>
void store_rows(const Heads<T>& to, int64_t batch, int64_t first, int64_t rows, int64_t head, const float* from, int64_t dim) {
  for (int64_t i = 0; i < rows; ++i, from += padded(dim)) {
    T* out = row_of(to, batch, first + i, head);
    each_vector(dim, [&](auto lanes, int64_t d, int) ALWAYS_INLINE { store_narrow(lanes, out + d, lanes.load(from + d)); });
  }
}

template <class T>
void attention_backward(const AttentionGradArgs<T>& g, int64_t task, void* scratch) {
  using Units = UnitsOf<T>;
  const AttentionArgs<T>& a = g.forward;
  const Task<T> at(a, task);
  const BackwardRoom<T> room(a, scratch);
  const int64_t dim = padded(a.dim), value_dim = padded(a.value_dim);
  pack_rows<Units>(room.k, row_of(a.k, at.batch, 0, at.kv_head), a.k.time, a.keys, a.dim);
  clear(room.dk, a.keys * dim);
  clear(room.dv, a.keys * value_dim);
  at.each_query_block(a, [&](int64_t head, Block& block) {
    load_queries(g, at, head, block, room);
    clear(room.dq, block_rows * dim);
    block.each_block([&](int64_t index, int64_t keys, bool partial) {
      score_block(room.score, a.k, room.q_columns, a.dim, at, index, keys, block.count);
      score_block(room.dp, a.v, room.dout_columns, a.value_dim, at, index, keys, block.count);
      (partial ? gradient_tile<T, true> : gradient_tile<T, false>)(block, keys, a.scale, room);
      // Sums over the queries: rows of p and ds lie ready.
      const auto add_to_keys = [&](float* sums, const float* left, const float* right, int64_t n, int64_t columns) {
        product<Units>({.c = sums + index * block_rows * columns,
                        .a = left,
                        .b = right,
                        .m = keys,
                        .n = n,
                        .units = units_of<Units>(block.count),
                        .a_row = block_rows * int64_t(sizeof(T)),
                        .a_unit = 4,
                        .b_unit = columns * 4,
                        .ldc = columns,
                        .add = true});
      };
      add_to_keys(room.dv, room.p, room.dout_rows, a.value_dim, value_dim);
      add_to_keys(room.dk, room.ds, room.q_rows, a.dim, dim);
      product<Units>({.c = room.dq,
                      .a = room.ds_pairs,
                      .b = room.k + index * block_rows / Units::values * dim,
                      .m = block.count,
                      .n = a.dim,
                      .units = units_of<Units>(keys),
                      .a_row = 4,
                      .a_unit = block_rows * 4,
                      .b_unit = dim * 4,
                      .ldc = dim,
                      .add = true});
    });
    store_rows(g.dq, at.batch, block.first, block.count, head, room.dq, a.dim);
  });
  store_rows(g.dk, at.batch, 0, a.keys, at.kv_head, room.dk, a.dim);
  store_rows(g.dv, at.batch, 0, a.keys, at.kv_head, room.dv, a.value_dim);
}
