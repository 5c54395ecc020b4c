// The layout of core/packed.h, written out here a second time from its description.
#include "ops/pack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace hadal {
namespace {

constexpr DType types[] = {DType::w8, DType::w4, DType::w3, DType::w2};

RowCodes random_codes(DType type, int64_t cols, std::mt19937& random) {
  RowCodes codes;
  for (int64_t k = 0; k < padded_cols(cols); ++k) codes.code.push_back(uint8_t(random() % (type == DType::w8 ? 256 : levels_of(type))));
  if (type != DType::w8)
    for (int64_t g = 0; g < padded_cols(cols) / group_cols; ++g) codes.groups.push_back(uint8_t(random()));
  return codes;
}

// Value w(c, k) of one block.
int value_at(DType type, const uint8_t* block, int64_t c, int64_t k) {
  const auto byte = [&](int64_t line, int64_t at) { return int(block[line * 64 + at]); };
  const int64_t j = k % 4;
  if (type == DType::w8) return int8_t(byte(k / 4, c * 4 + j));
  const int lines = type == DType::w4 ? 16 : type == DType::w3 ? 12 : 8;
  const int group = byte(lines, k / 32 * 16 + c), s = group % 16, z = group / 16;
  if (type == DType::w4) return (byte(k % 64 / 4, c * 4 + j) >> (k < 64 ? 0 : 4)) % 16 * s - (s * (z + 9) >> 1);
  const int64_t g = k / 32, r = k % 32 / 4;
  const int low = byte(r, c * 4 + j) >> (2 * g) & 3;
  if (type == DType::w2) return low * s - (s * (z + 9) >> 3);
  return (low + 4 * (byte(8 + r / 2, c * 4 + j) >> (r % 2 * 4 + g) & 1)) * s - (s * (z + 9) >> 2);
}

TEST(Pack, BytesStandWhereTheFormatSays) {
  std::mt19937 random(1);
  for (const DType type : types)
    for (const int64_t cols : {1, 7, 31, 127, 128, 129, 257}) {
      const int64_t rows = 17;
      std::vector<std::byte> bytes(size_t(packed_bytes(type, rows, cols)));
      std::vector<float> scale(size_t(padded_rows(rows)), 1.f);
      std::vector<int32_t> sum(scale.size());
      std::vector<RowCodes> all;
      for (int64_t r = 0; r < rows; ++r) {
        all.push_back(random_codes(type, cols, random));
        pack_row(type, all.back(), r % 16, cols, bytes.data() + r / 16 * panel_bytes(type, cols));
      }
      const Weight w{type, rows, cols, bytes.data(), scale.data(), sum.data()};
      std::vector<int8_t> integers(size_t(padded_cols(cols)));
      for (int64_t r = 0; r < rows; ++r) {
        const RowCodes back = unpack_row(w, r);
        EXPECT_EQ(back.code, all[size_t(r)].code) << name_of(type) << " columns " << cols;
        EXPECT_EQ(back.groups, all[size_t(r)].groups);
        const int32_t total = integers_of(type, back, integers.data());
        int32_t expected = 0;
        for (int64_t k = 0; k < padded_cols(cols); ++k) {
          const auto* block =
              reinterpret_cast<const uint8_t*>(bytes.data()) + r / 16 * panel_bytes(type, cols) + k / 128 * info_of(type).block_bytes;
          const int value = int8_t(value_at(type, block, r % 16, k % 128));  // random codes may wrap
          ASSERT_EQ(integers[size_t(k)], value) << name_of(type) << " row " << r << " column " << k;
          expected += value;
        }
        EXPECT_EQ(total, expected);
      }
      for (int64_t r = rows; r < padded_rows(rows); ++r) {
        EXPECT_EQ(integers_of(type, unpack_row(w, r), integers.data()), 0);
        EXPECT_TRUE(std::ranges::all_of(integers, [](int8_t v) { return v == 0; }));
      }
    }
}

TEST(Pack, SizesAreThoseOfTheFormat) {
  EXPECT_EQ(packed_bytes(DType::w4, 2048, 2048), 128 * 16 * 1088);
  EXPECT_EQ(packed_bytes(DType::w8, 17, 129), 2 * 2 * 2048);
  EXPECT_EQ(packed_bytes(DType::w3, 1, 1), 832);
  EXPECT_EQ(packed_bytes(DType::w2, 0, 128), 0);
}

}  // namespace
}  // namespace hadal
