#include "infer/kv_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.h"

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
  EXPECT_EQ(a.pages.size(), 2u);
  EXPECT_TRUE(kv.reserve(a, 128));  // still two
  EXPECT_EQ(kv.free_pages(), 2);
  EXPECT_TRUE(kv.reserve(b, 100));
  EXPECT_FALSE(kv.reserve(a, 129));
  EXPECT_EQ(a.pages.size(), 2u) << "a refused reservation changes nothing";
  kv.release(b);
  EXPECT_EQ(kv.free_pages(), 2);
  EXPECT_TRUE(b.pages.empty());
  EXPECT_TRUE(kv.reserve(a, 256));
}

TEST(KvCache, PagesDoNotOverlap) {
  for (const DType type : {DType::f32, DType::f16}) {
    KvCache kv(small(), type, 128);
    std::set<std::byte*> starts;
    for (int64_t layer = 0; layer < 3; ++layer)
      for (int32_t page = 0; page < 2; ++page) starts.insert(kv.page(layer, page));
    ASSERT_EQ(starts.size(), 6u);
    const std::byte* previous = nullptr;
    for (const std::byte* at : starts) {
      if (previous) {
        EXPECT_EQ(at - previous, bytes_of(type, KvCache::page_rows * kv.width()));
      }
      previous = at;
    }
    EXPECT_EQ(KvCache::bytes_per_row(small(), type), 3 * 20 * bytes_of(type, 1));
  }
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
