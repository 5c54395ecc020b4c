// attend() and select_keys() against the textbook formula in double, and against themselves cut in other ways.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "core/pool.h"
#include "ops/ops.h"

namespace hadal {
namespace {

struct Case {  // a sequence of `length` cached rows [keys of all kv heads | values of all kv heads]
  int64_t length, heads, kv_heads, key_dim, value_dim;
  DType type;
  int64_t width() const { return kv_heads * (key_dim + value_dim); }
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
  std::vector<const std::byte*> pages;

  explicit Cache(const Case& c) : values(random_floats(size_t(c.length * c.width()), 1)) {
    const int64_t count = (c.length + CacheRows::page_rows - 1) / CacheRows::page_rows, size = info_of(c.type).block_bytes;
    bytes.resize(size_t(count * CacheRows::page_rows * c.width() * size));
    for (size_t i = 0; i < values.size(); ++i) {
      if (c.type == DType::f32) {
        std::memcpy(bytes.data() + i * 4, &values[i], 4);
      } else {
        const f16 rounded = f32_to_f16(values[i]);
        std::memcpy(bytes.data() + i * 2, &rounded, 2);
        values[i] = f16_to_f32(rounded);
      }
    }
    // Pages out of order in memory: only the table may say where they are.
    for (int64_t p = 0; p < count; ++p) pages.push_back(bytes.data() + p * CacheRows::page_rows * c.width() * size);
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
          .key_step = c.key_dim,
          .value_offset = c.kv_heads * c.key_dim,
          .value_step = c.value_dim,
          .scale = 0.3f,
          .selected = {}};
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
        p.push_back(is_selected(selected, r, key) ? dot * double(0.3f) : -1e300);
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
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(out[i], want[i], 2e-5) << "rows " << rows << " element " << i;
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

INSTANTIATE_TEST_SUITE_P(Shapes, Attend,
                         testing::Values(Case{1, 1, 1, 8, 8, DType::f32}, Case{7, 3, 1, 14, 14, DType::f32},
                                         Case{63, 6, 3, 16, 16, DType::f16}, Case{64, 4, 4, 17, 9, DType::f32},
                                         Case{65, 12, 1, 24, 16, DType::f16}, Case{127, 9, 3, 15, 7, DType::f32},
                                         Case{200, 20, 2, 10, 12, DType::f16}));

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

TEST(SelectKeys, KeepsTheBestAndBreaksTiesByPosition) {
  const int64_t length = 130, dim = 4, heads = 2, rows = 3, keys = 9;
  std::vector<float> cached(size_t(192 * dim), 0.f);
  std::vector<double> score(static_cast<size_t>(length));
  for (int64_t i = 0; i < length; ++i) {
    cached[size_t(i * dim)] = float(i * 37 % 41) - 20;  // many equal ones, many negative
    score[size_t(i)] = std::max(0.0, double(i * 37 % 41) - 20);
  }
  const std::vector<const std::byte*> pages{reinterpret_cast<const std::byte*>(cached.data()),
                                            reinterpret_cast<const std::byte*>(cached.data() + 64 * dim),
                                            reinterpret_cast<const std::byte*>(cached.data() + 128 * dim)};
  std::vector<float> q(size_t(rows * heads * dim), 0.f), weights(size_t(rows * heads), 0.5f);
  for (int64_t i = 0; i < rows * heads; ++i) q[size_t(i * dim)] = 1;
  std::vector<uint64_t> words(size_t(rows * 3), 0);
  select_keys({.selected = {words.data(), rows, 3, 3},
               .q = {q.data(), rows, heads * dim, heads * dim},
               .head_weights = {weights.data(), rows, heads, heads},
               .cache = {DType::f32, pages, dim},
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
