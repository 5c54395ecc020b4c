#include "infer/kv_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.h"
#include "core/packed.h"
#include "infer/recipe.h"
#include "model/presets.h"

namespace hadal {
namespace {

ModelConfig small() {
  ModelConfig c;
  c.layers = 3, c.heads = c.kv_heads = 2, c.head_dim = 5;
  return c;
}

TEST(KvCache, ReservesWholePagesAndGivesThemBack) {
  KvCache kv(small(), DType::f16, 250);
  EXPECT_EQ(kv.pages(), 4);
  EXPECT_EQ(kv.width(), 20);
  KvRows a, b;
  EXPECT_TRUE(kv.reserve(a, 65));
  EXPECT_EQ(a.pages[0].size(), 2u);
  EXPECT_TRUE(kv.reserve(a, 128));  // still two
  EXPECT_EQ(kv.free_pages(), 2);
  EXPECT_TRUE(kv.reserve(b, 100));
  EXPECT_FALSE(kv.reserve(a, 129));
  EXPECT_EQ(a.pages[0].size(), 2u) << "a refused reservation changes nothing";
  kv.release(b);
  EXPECT_EQ(kv.free_pages(), 2);
  EXPECT_TRUE(b.pages.empty());
  EXPECT_TRUE(kv.reserve(a, 256));
}

TEST(KvCache, PagesDoNotOverlap) {
  for (const DType type : {DType::f32, DType::f16, DType::i8}) {
    KvCache kv(small(), type, 128);
    KvRows rows;
    ASSERT_TRUE(kv.reserve(rows, 128));
    std::set<std::byte*> starts;
    for (int64_t layer = 0; layer < 3; ++layer)
      for (int64_t page = 0; page < 2; ++page) starts.insert(kv.page(layer, rows, page));
    ASSERT_EQ(starts.size(), 6u);
    const std::byte* previous = nullptr;
    for (const std::byte* at : starts) {
      if (previous) {
        EXPECT_EQ(at - previous, kv.page_bytes(0));
      }
      previous = at;
    }
    const int64_t row = type == DType::i8 ? 3 * 4 * (8 + 4) : 3 * 20 * bytes_of(type, 1);  // i8: 5 columns take 8, and a scale
    EXPECT_EQ(KvCache::bytes_per_row(small(), type), row);
    EXPECT_EQ(kv.bytes(), size_t(128 * row));
  }
}

TEST(KvCache, AWindowTakesARing) {
  ModelConfig config = small();
  config.masks = {{}, {.window = 100, .sinks = 70}, {.window = 100, .sinks = 70}};
  KvCache kv(config, DType::f32, 1024);
  const int64_t kept = 2 + 2 + 1;  // pages: 70 sinks, 100 rows, and one for a window that does not begin with a page
  EXPECT_EQ(int64_t(kv.bytes()), kv.page_bytes(0) * (16 + 2 * kept));
  EXPECT_EQ(int64_t(kv.bytes()), KvCache::bytes(config, DType::f32, 1024));
  KvRows rows;
  ASSERT_TRUE(kv.reserve(rows, 1024));
  EXPECT_EQ(kv.free_pages(), 0);
  for (int64_t layer = 1; layer < 3; ++layer) {
    EXPECT_EQ(int64_t(kv.pages_of(layer, rows).size()), kept);
    for (int64_t index = 2; index < 13; ++index) EXPECT_EQ(kv.page(layer, rows, index), kv.page(layer, rows, index + 3));
    EXPECT_NE(kv.page(layer, rows, 1), kv.page(layer, rows, 4));
    EXPECT_EQ(kv.mask(layer), (Mask{100, 70}));
  }
  EXPECT_EQ(kv.mask(0), Mask{});
  for (int64_t position = 0; position < 1000; ++position)
    for (const int64_t rows_wanted : {1, 64, 500}) {
      const int64_t together = kv.rows_together(1, position, rows_wanted);
      ASSERT_GE(together, 1);
      ASSERT_LE(together, rows_wanted);
      const int64_t oldest = std::max<int64_t>({position - 99, 128, 0}) / 64, newest = (position + together - 1) / 64;
      if (newest >= 2) {
        ASSERT_LT(newest - oldest, 3) << "position " << position << ": a page that is still seen would be written over";
      }
      EXPECT_EQ(kv.rows_together(0, position, rows_wanted), rows_wanted);
    }
  kv.release(rows);
  EXPECT_EQ(kv.free_pages(), kept);
}

int64_t weight_bytes(const ModelConfig& config, const Recipe& recipe) {
  int64_t sum = 0;
  auto params = make_params<int>(config);
  for_each_param(config, params, [&](const std::string& name, Shape shape, Role role, int&) {
    const bool is_matrix = role == Role::matrix || role == Role::embedding;
    const DType type = is_matrix ? recipe.type_of(config, name, role).value_or(DType::bf16) : DType::f32;
    sum += is_packed(type) ? packed_bytes(type, shape.rows, shape.cols) + padded_rows(shape.rows) * 8
                           : bytes_of(type, shape.rows * shape.cols);
  });
  return sum;
}

// Weights and cache of 10,240 tokens, the cache as it is allocated. Rings are whole pages: 8 for the window, one more, one for the sinks.
TEST(KvCache, AWindowSavesTwoFifthsOfA1BModelsMemory) {
  const ModelConfig full = preset("coder-1.3b");
  ModelConfig windowed = full;
  windowed.attention_window = 512, windowed.attention_sinks = 4;
  const auto cache = [](const ModelConfig& config) {
    const KvCache kv(config, DType::f16, 10'240);
    EXPECT_EQ(int64_t(kv.bytes()), KvCache::bytes(config, DType::f16, 10'240));
    return double(kv.bytes());
  };
  EXPECT_EQ(KvCache::bytes(full, DType::f16, 10'240), 2 * 24 * 10'240 * 2 * 2048);
  EXPECT_EQ(KvCache::bytes(windowed, DType::f16, 10'240), 2 * 24 * (10 * 64) * 2 * 2048);
  const auto saved = [&](const Recipe& recipe) {
    const double weights = double(weight_bytes(full, recipe));
    return 1 - (weights + cache(windowed)) / (weights + cache(full));
  };
  EXPECT_NEAR(saved({}), 0.401, 0.001);
  EXPECT_NEAR(saved({.weights = DType::w4, .keep = {}}), 0.67, 0.01);
}

TEST(KvCache, SaysHowMuchMemoryIsMissing) {
  try {
    KvCache(small(), DType::f32, int64_t(1) << 40);
    FAIL() << "a petabyte was granted";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("not enough memory for the key-value cache"));
    EXPECT_THAT(e.what(), testing::HasSubstr("GB"));
  }
}

}  // namespace
}  // namespace hadal
