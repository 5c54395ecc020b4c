// attend() and select_keys() against the textbook formula in double, and against themselves cut in other ways.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "core/pool.h"
#include "ops/attend.h"
#include "ops/ops.h"

namespace hadal {
namespace {

struct Case {  // a sequence of `length` cached rows [keys of all kv heads | values of all kv heads]; i8: per head a part of each
  int64_t length, heads, kv_heads, key_dim, value_dim;
  DType type;
  Mask mask = {};
  int64_t width() const { return kv_heads * (key_dim + value_dim); }
  int64_t head_bytes() const { return part_bytes(key_dim) + part_bytes(value_dim); }
  int64_t page_bytes() const {
    return type == DType::i8 ? kv_heads * head_bytes() : CacheRows::page_rows * width() * info_of(type).block_bytes;
  }
  double tolerance() const { return type == DType::i8 ? 0.1 : 2e-5; }  // of values about 1 in size
};

std::vector<float> random_floats(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& v : x) v = normal(random);
  return x;
}

struct Cache {
  std::vector<float> values;  // as read back from storage, [length, width]
  std::vector<std::byte> bytes;
  std::vector<CachePage> pages;

  explicit Cache(const Case& c) : values(random_floats(size_t(c.length * c.width()), 1)) {
    const int64_t count = (c.length + CacheRows::page_rows - 1) / CacheRows::page_rows;
    bytes.resize(size_t(count * c.page_bytes()));
    for (int64_t p = 0; p < count; ++p) pages.push_back({p, bytes.data() + p * c.page_bytes()});
    if (c.type == DType::i8) {
      store_parts(c);
      return;
    }
    for (size_t i = 0; i < values.size(); ++i) {
      if (c.type == DType::f32) {
        std::memcpy(bytes.data() + i * 4, &values[i], 4);
      } else {
        const f16 rounded = f32_to_f16(values[i]);
        std::memcpy(bytes.data() + i * 2, &rounded, 2);
        values[i] = f16_to_f32(rounded);
      }
    }
  }

  void store_parts(const Case& c) {
    for (int64_t i = 0; i < c.length; ++i)
      for (int64_t head = 0; head < c.kv_heads; ++head) {
        std::byte* part = bytes.data() + i / 64 * c.page_bytes() + head * c.head_bytes();
        float *key = &values[size_t(i * c.width() + head * c.key_dim)],
              *value = &values[size_t(i * c.width() + c.kv_heads * c.key_dim + head * c.value_dim)];
        store_part_row(part, i % 64, key, c.key_dim);
        store_part_row(part + part_bytes(c.key_dim), i % 64, value, c.value_dim);
        load_part_row(key, part, i % 64, c.key_dim);
        load_part_row(value, part + part_bytes(c.key_dim), i % 64, c.value_dim);
      }
  }
};

AttendArgs args_of(const Case& c, const Cache& cache, int64_t position, Mat<float> out, Mat<const float> q) {
  return {.out = out,
          .q = q,
          .cache = {c.type, cache.pages, c.width()},
          .position = position,
          .heads = c.heads,
          .kv_heads = c.kv_heads,
          .key_dim = c.key_dim,
          .value_dim = c.value_dim,
          .key_offset = 0,
          .key_step = c.type == DType::i8 ? c.head_bytes() : c.key_dim,
          .value_offset = c.type == DType::i8 ? part_bytes(c.key_dim) : c.kv_heads * c.key_dim,
          .value_step = c.type == DType::i8 ? c.head_bytes() : c.value_dim,
          .scale = 0.3f,
          .mask = c.mask};
}

bool is_seen(const Mask& mask, int64_t position, int64_t key) {
  return mask.window == 0 || key > position - mask.window || key < mask.sinks;
}

bool is_selected(Mat<const uint64_t> selected, int64_t row, int64_t key) {
  return !selected.data || (selected.row(row)[key / 64] >> key % 64 & 1);
}

std::vector<double> textbook(const Case& c, const Cache& cache, int64_t position, const std::vector<float>& q, int64_t rows,
                             Mat<const uint64_t> selected = {}) {
  std::vector<double> out(size_t(rows * c.heads * c.value_dim));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t h = 0; h < c.heads; ++h) {
      const int64_t kv = h / (c.heads / c.kv_heads);
      std::vector<double> p;
      double max = -1e300, sum = 0;
      for (int64_t key = 0; key <= position + r; ++key) {
        double dot = 0;
        for (int64_t i = 0; i < c.key_dim; ++i)
          dot += double(q[size_t((r * c.heads + h) * c.key_dim + i)]) * cache.values[size_t(key * c.width() + kv * c.key_dim + i)];
        p.push_back(is_selected(selected, r, key) && is_seen(c.mask, position + r, key) ? dot * double(0.3f) : -1e300);
        max = std::max(max, p.back());
      }
      for (double& v : p) sum += v = std::exp(v - max);
      for (size_t key = 0; key < p.size(); ++key)
        for (int64_t i = 0; i < c.value_dim; ++i)
          out[size_t((r * c.heads + h) * c.value_dim + i)] +=
              p[key] / sum * cache.values[key * size_t(c.width()) + size_t(c.kv_heads * c.key_dim + kv * c.value_dim + i)];
    }
  return out;
}

class Attend : public testing::TestWithParam<Case> {};

TEST_P(Attend, EqualsTheTextbook) {
  const Case& c = GetParam();
  const Cache cache(c);
  for (const int64_t rows : {int64_t(1), int64_t(7), int64_t(17), c.length}) {
    if (rows > c.length) continue;
    const std::vector<float> q = random_floats(size_t(rows * c.heads * c.key_dim), 2);
    std::vector<float> out(size_t(rows * c.heads * c.value_dim), NAN);
    const AttendArgs args = args_of(c, cache, c.length - rows, {out.data(), rows, c.heads * c.value_dim, c.heads * c.value_dim},
                                    {q.data(), rows, c.heads * c.key_dim, c.heads * c.key_dim});
    attend({&args, 1});
    const std::vector<double> want = textbook(c, cache, c.length - rows, q, rows);
    double squares = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_NEAR(out[i], want[i], c.tolerance()) << "rows " << rows << " element " << i;
      squares += (out[i] - want[i]) * (out[i] - want[i]);
    }
    EXPECT_LE(std::sqrt(squares / double(want.size())), c.tolerance() / 10) << "rows " << rows;
  }
}

TEST_P(Attend, DoesNotDependOnHowRowsAreCut) {
  const Case& c = GetParam();
  const Cache cache(c);
  const int64_t rows = std::min<int64_t>(c.length, 40), q_cols = c.heads * c.key_dim, out_cols = c.heads * c.value_dim;
  const std::vector<float> q = random_floats(size_t(rows * q_cols), 3);
  std::vector<float> whole(size_t(rows * out_cols)), pieces(whole.size());
  const AttendArgs all = args_of(c, cache, c.length - rows, {whole.data(), rows, out_cols, out_cols}, {q.data(), rows, q_cols, q_cols});
  attend({&all, 1});
  std::vector<AttendArgs> cut;
  for (int64_t first = 0; first < rows; first += 3) {
    const int64_t count = std::min<int64_t>(3, rows - first);
    cut.push_back(args_of(c, cache, c.length - rows + first, {pieces.data() + first * out_cols, count, out_cols, out_cols},
                          {q.data() + first * q_cols, count, q_cols, q_cols}));
  }
  attend(cut);
  EXPECT_EQ(0, std::memcmp(whole.data(), pieces.data(), whole.size() * sizeof(float)));
}

// Few tiles are cut into ranges of pages, many are not: the same bits, as with one thread, which never cuts.
TEST_P(Attend, DoesNotDependOnTheThreads) {
  const Case& c = GetParam();
  const Cache cache(c);
  const int64_t q_cols = c.heads * c.key_dim, out_cols = c.heads * c.value_dim;
  const std::vector<float> q = random_floats(size_t(q_cols), 3);
  std::vector<float> one(static_cast<size_t>(out_cols)), four(one.size());
  for (const bool alone : {true, false}) {
    set_pool_threads(alone ? 1 : 4);
    const AttendArgs args =
        args_of(c, cache, c.length - 1, {(alone ? one : four).data(), 1, out_cols, out_cols}, {q.data(), 1, q_cols, q_cols});
    attend({&args, 1});
  }
  set_pool_threads(2);
  EXPECT_EQ(one, four);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Attend,
    testing::Values(Case{1, 1, 1, 8, 8, DType::f32}, Case{7, 3, 1, 14, 14, DType::f32}, Case{63, 6, 3, 16, 16, DType::f16},
                    Case{64, 4, 4, 17, 9, DType::f32}, Case{65, 12, 1, 24, 16, DType::f16}, Case{127, 9, 3, 15, 7, DType::f32},
                    Case{200, 20, 2, 10, 12, DType::f16}, Case{1200, 4, 2, 16, 16, DType::f32}, Case{1, 1, 1, 8, 8, DType::i8},
                    Case{7, 3, 1, 14, 14, DType::i8}, Case{65, 12, 1, 24, 16, DType::i8}, Case{127, 9, 3, 15, 7, DType::i8},
                    Case{200, 40, 2, 10, 12, DType::i8}, Case{1200, 4, 2, 16, 16, DType::i8}, Case{300, 4, 2, 16, 16, DType::f32, {100, 0}},
                    Case{1200, 4, 2, 16, 16, DType::f16, {1, 0}}, Case{1200, 4, 2, 16, 16, DType::i8, {600, 4}},
                    Case{700, 6, 2, 8, 20, DType::i8, {64, 70}}, Case{700, 6, 2, 8, 20, DType::f32, {65, 3}}));

TEST(Attend, ReadsOnlySelectedKeys) {
  const Case c{150, 4, 2, 16, 8, DType::f32};
  Cache cache(c);
  const int64_t rows = 5;
  const std::vector<float> q = random_floats(size_t(rows * c.heads * c.key_dim), 4);
  std::vector<uint64_t> words(rows * 3, 0);
  for (int64_t r = 0; r < rows; ++r) words[size_t(r * 3)] = 0x11u << r, words[size_t(r * 3 + 2)] = 3;  // page 1 not at all
  for (int64_t key = 64; key < 128; ++key)
    for (int64_t i = 0; i < c.width(); ++i) {
      const float poison = NAN;
      std::memcpy(cache.bytes.data() + (key * c.width() + i) * 4, &poison, 4);
      cache.values[size_t(key * c.width() + i)] = 0;
    }
  std::vector<float> out(size_t(rows * c.heads * c.value_dim));
  AttendArgs args = args_of(c, cache, c.length - rows, {out.data(), rows, c.heads * c.value_dim, c.heads * c.value_dim},
                            {q.data(), rows, c.heads * c.key_dim, c.heads * c.key_dim});
  args.selected = {words.data(), rows, 3, 3};
  attend({&args, 1});
  const std::vector<double> want = textbook(c, cache, c.length - rows, q, rows, args.selected);
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(out[i], want[i], 2e-5) << i;
}

class SelectKeys : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, SelectKeys, testing::Values(DType::f32, DType::i8));

TEST_P(SelectKeys, KeepsTheBestAndBreaksTiesByPosition) {
  const int64_t length = 130, dim = 4, heads = 2, rows = 3, keys = 9;
  std::vector<float> cached(size_t(192 * dim), 0.f);
  std::vector<double> score(static_cast<size_t>(length));
  for (int64_t i = 0; i < length; ++i) {
    cached[size_t(i * dim)] = float(i * 37 % 41) - 20;  // many equal ones, many negative
    score[size_t(i)] = std::max(0.0, double(i * 37 % 41) - 20);
  }
  std::vector<CachePage> pages;
  std::vector<std::byte> parts(size_t(3 * part_bytes(dim)));
  for (int64_t i = 0; i < 192; ++i) store_part_row(parts.data() + i / 64 * part_bytes(dim), i % 64, &cached[size_t(i * dim)], dim);
  for (int64_t i = 0; i < 3; ++i) {
    const std::byte* floats = reinterpret_cast<const std::byte*>(cached.data() + i * 64 * dim);
    pages.push_back({i, GetParam() == DType::i8 ? parts.data() + i * part_bytes(dim) : floats});
  }
  std::vector<float> q(size_t(rows * heads * dim), 0.f), weights(size_t(rows * heads), 0.5f);
  for (int64_t i = 0; i < rows * heads; ++i) q[size_t(i * dim)] = 1;
  std::vector<uint64_t> words(size_t(rows * 3), 0);
  select_keys({.selected = {words.data(), rows, 3, 3},
               .q = {q.data(), rows, heads * dim, heads * dim},
               .head_weights = {weights.data(), rows, heads, heads},
               .cache = {GetParam(), pages, dim},
               .position = length - rows,
               .heads = heads,
               .dim = dim,
               .offset = 0,
               .keys = keys});
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<int64_t> order;
    for (int64_t i = 0; i <= length - rows + r; ++i) order.push_back(i);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return score[size_t(a)] > score[size_t(b)]; });
    std::vector<uint64_t> want(3, 0);
    for (int64_t i = 0; i < keys; ++i) want[size_t(order[size_t(i)] / 64)] |= uint64_t(1) << order[size_t(i)] % 64;
    for (size_t page = 0; page < 3; ++page) EXPECT_EQ(words[size_t(r * 3) + page], want[page]) << "row " << r << " page " << page;
  }
}

// Needles, keys like one query among random ones, in pages that only the sketch can tell from the others.
TEST(SelectBlocks, FindsTheNeedlesThatDenseAttentionFinds) {
  const int64_t pages = 64, dim = 64, length = pages * 64, top = 16;
  std::vector<std::byte> sketches(size_t(pages * sketch_bytes(dim)));
  std::vector<CachePage> list;
  for (int64_t i = 0; i < pages; ++i) list.push_back({i, sketches.data() + i * sketch_bytes(dim)});
  int found = 0, dense = 0;
  for (uint32_t trial = 0; trial < 60; ++trial) {
    std::vector<float> keys = random_floats(size_t(length * dim), 100 + trial);
    const std::vector<float> q = random_floats(size_t(dim), 500 + trial);
    const int64_t needle = 64 + int64_t(trial * 7919) % (length - 300);
    for (int64_t d = 0; d < dim; ++d) keys[size_t(needle * dim + d)] = 0.55f * q[size_t(d)] + 0.8f * keys[size_t(needle * dim + d)];
    for (int64_t i = 0; i < length; ++i)
      store_sketch_row(sketches.data() + i / 64 * sketch_bytes(dim), i % 64, &keys[size_t(i * dim)], dim);
    int64_t best = 0;  // of dense attention: the key with the largest score
    double most = -1e300;
    for (int64_t i = 0; i < length; ++i) {
      double dot = 0;
      for (int64_t d = 0; d < dim; ++d) dot += double(q[size_t(d)]) * keys[size_t(i * dim + d)];
      if (dot > most) most = dot, best = i;
    }
    std::vector<uint64_t> words(size_t(pages), 7);
    select_blocks({.selected = {words.data(), 1, pages, pages},
                   .q = {q.data(), 1, dim, dim},
                   .pages = list,
                   .position = length - 1,
                   .heads = 1,
                   .kv_heads = 1,
                   .dim = dim,
                   .sketch_offset = 0,
                   .sketch_step = 0,
                   .mask = {.top_blocks = top}});
    EXPECT_EQ(std::ranges::count(words, ~uint64_t(0)), top);
    EXPECT_EQ(std::ranges::count(words, uint64_t(0)), pages - top);
    EXPECT_TRUE(words[0] && words[size_t(pages - 1)] && words[size_t(pages - 2)]) << "the first, the own and the one before";
    dense += best == needle;
    found += best == needle && words[size_t(needle / 64)] != 0;
  }
  EXPECT_GE(dense, 40);
  EXPECT_GE(found, 0.97 * dense) << "at a quarter of the blocks";
}

TEST(MatmulHeads, EqualsOneProductPerHead) {
  const int64_t heads = 3, inner = 17, per_head = 10, rows = 70;
  const std::vector<float> x = random_floats(size_t(rows * heads * inner), 5), w = random_floats(size_t(heads * 25 * inner), 6);
  const Weight weight{DType::f32, heads * 25, inner, reinterpret_cast<const std::byte*>(w.data())};
  std::vector<float> out(size_t(rows * heads * 12), 7.f);
  matmul_heads({.out = {out.data(), rows, heads * 12, heads * 12},
                .x = {x.data(), rows, heads * inner, heads * inner},
                .w = weight,
                .heads = heads,
                .out_step = 12,
                .x_step = inner,
                .first_row = 4,
                .row_step = 25,
                .rows_per_head = per_head});
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t j = 0; j < 12; ++j) {
        double want = j < per_head ? 0 : 7;  // columns between the heads stay
        for (int64_t i = 0; j < per_head && i < inner; ++i)
          want += double(x[size_t(r * heads * inner + h * inner + i)]) * w[size_t((4 + h * 25 + j) * inner + i)];
        ASSERT_NEAR(out[size_t(r * heads * 12 + h * 12 + j)], want, 1e-4) << r << ' ' << h << ' ' << j;
      }
}

}  // namespace
}  // namespace hadal
