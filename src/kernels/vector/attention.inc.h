// Attention of training for every vector level; included after product.inc.h and visible.inc.h.
// Blocks of 64 queries by 64 keys. Scores are computed as keys x queries, so that a vector holds 16 queries: softmax needs no sums across
// lanes, and a key that some of them do not see is one mask. Then out += p^T v. Forward keeps out and the logarithm of the sum; backward
// computes p again and makes five products of a block: scores, dp = v dout^T, dv += p dout, dk += ds q, dq += ds^T k.
// A task is one kv head: keys are packed once, and gradients are added in the order of the queries, whatever the number of threads.

constexpr float log2_of_e = 0x1.715476p+0f;
constexpr float nothing_seen = -1e30f;  // below any score, far from the end of the range

// 2^x; relative error 1e-7, exactly 0 far below.
INLINE Vec exp2(Vec x) {
  x = max(set(-160), x);
  const Vec n = round(x), r = x - n;
  constexpr float minimax[] = {0.009675541892647743f, 0.05550713092088699f, 0.24022120237350464f, 0.6931469440460205f, 1.0000001192092896f};
  Vec sum = set(0.001327647129073739f);
#pragma GCC unroll 8
  for (int i = 0; i < 5; ++i) sum = fma(sum, r, set(minimax[i]));
  return times_power(sum, n);
}

template <class T>
struct ForwardRoom {
  Room room;
  float *q, *score, *p, *out, *most, *sum, *factor, *v;
  ForwardRoom(const AttentionArgs<T>& a, void* scratch) : room(scratch) {
    using Units = UnitsOf<T>;
    q = room.units(units_of<Units>(a.dim) * block_rows);
    score = room.units(block_rows * block_rows);
    p = Units::values == 1 ? score : room.units(block_rows * block_rows / 2);
    out = room.units(block_rows * padded(a.value_dim));
    most = room.units(block_rows), sum = room.units(block_rows), factor = room.units(block_rows);
    v = room.units(units_of<Units>(a.keys) * padded(a.value_dim));
  }
};

// Online softmax of a block: scores [keys][64] become p as units [units_of(keys)][64].
template <class Units, bool partial>
void softmax_tile(const Block& block, int64_t keys, float scale, float* score, float* p, float* most_seen, float* sums, float* factor) {
  const Vec to_power = set(scale * log2_of_e);
  for (int64_t q = 0; q < padded(block.count); q += width) {
    const Vec before = Whole{}.load(most_seen + q);
    Vec most = before;
    for (int64_t k = 0; k < keys; ++k) {
      Vec s = Whole{}.load(score + k * block_rows + q);
      if (partial) {
        s = where_bit(block.words[k / 32] + q, uint32_t(1) << k % 32, s, set(-__builtin_inff()));
        Whole{}.store(score + k * block_rows + q, s);
      }
      most = max(most, s);
    }
    const Vec base = most * to_power, moved = exp2(before * to_power - base);
    Vec sum = Whole{}.load(sums + q) * moved;
    const auto probability = [&](int64_t k) ALWAYS_INLINE {
      const Vec e = exp2(fma(Whole{}.load(score + k * block_rows + q), to_power, -base));
      sum += e;
      return e;
    };
    for (int64_t k = 0; k < keys; k += Units::values) {
      Vec unit = probability(k);
      if constexpr (Units::values == 2) unit = rounded_pair(unit, k + 1 < keys ? probability(k + 1) : set(0));
      Whole{}.store(p + k / Units::values * block_rows + q, unit);
    }
    Whole{}.store(most_seen + q, most);
    Whole{}.store(sums + q, sum);
    Whole{}.store(factor + q, moved);
  }
}

// scores [keys][64] of a block of keys: rows of k (or v) against packed queries (or gradients).
template <class T>
INLINE void score_block(float* score, const Heads<const T>& k, const float* q, int64_t dim, const Task<T>& at, int64_t block, int64_t keys,
                        int64_t queries) {
  using Units = UnitsOf<T>;
  product<Units>({.c = score,
                  .a = row_of(k, at.batch, block * block_rows, at.kv_head),
                  .b = q,
                  .m = keys,
                  .n = padded(queries),
                  .units = units_of<Units>(dim),
                  .a_row = k.time * int64_t(sizeof(T)),
                  .a_unit = 4,
                  .b_unit = block_rows * 4,
                  .ldc = block_rows,
                  .half = dim % Units::values != 0});
}

template <class T>
void attention(const AttentionArgs<T>& a, int64_t task, void* scratch) {
  using Units = UnitsOf<T>;
  const Task<T> at(a, task);
  const ForwardRoom<T> room(a, scratch);
  const int64_t columns = padded(a.value_dim);
  pack_rows<Units>(room.v, row_of(a.v, at.batch, 0, at.kv_head), a.v.time, a.keys, a.value_dim);
  at.each_query_block(a, [&](int64_t head, Block& block) {
    pack_columns<Units>(room.q, row_of(a.q, at.batch, block.first, head), a.q.time, block.count, a.dim);
    for (int64_t i = 0; i < block_rows * columns; ++i) room.out[i] = 0;
    for (int64_t i = 0; i < block_rows; ++i) room.most[i] = nothing_seen, room.sum[i] = 0;
    block.each_block([&](int64_t index, int64_t keys, bool partial) {
      score_block(room.score, a.k, room.q, a.dim, at, index, keys, block.count);
      (partial ? softmax_tile<Units, true> : softmax_tile<Units, false>)(block, keys, a.scale, room.score, room.p, room.most, room.sum,
                                                                         room.factor);
      product<Units>({.c = room.out,
                      .a = room.p,
                      .b = room.v + index * block_rows / Units::values * columns,
                      .m = block.count,
                      .n = a.value_dim,
                      .units = units_of<Units>(keys),
                      .a_row = 4,
                      .a_unit = block_rows * 4,
                      .b_unit = columns * 4,
                      .ldc = columns,
                      .add = true,
                      .factor = room.factor});
    });
    for (int64_t i = 0; i < block.count; ++i) {
      const bool sees = room.sum[i] > 0;
      const Vec factor = set(sees ? 1 / room.sum[i] : 0);
      T* out = row_of(a.out, at.batch, block.first + i, head);
      const float* from = room.out + i * columns;
      each_vector(a.value_dim,
                  [&](auto lanes, int64_t d, int) ALWAYS_INLINE { store_narrow(lanes, out + d, lanes.load(from + d) * factor); });
      a.lse[(at.batch * a.heads + head) * a.queries + block.first + i] =
          sees ? room.most[i] * a.scale + __builtin_logf(room.sum[i]) : -__builtin_inff();
    }
  });
}

template <class T>
int64_t attention_scratch(const AttentionArgs<T>& a) {
  return ForwardRoom<T>(a, nullptr).room.bytes;
}
