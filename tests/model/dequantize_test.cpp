// to_f32 against values that the gguf package read from the same random blocks (tests/golden/dequantize.py), to the last bit.
#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "made_files.h"
#include "model/gguf.h"

namespace hadal::test {
namespace {

using testing::ElementsAre;

class Blocked : public testing::TestWithParam<std::string> {};

TEST_P(Blocked, ValuesAreThoseOfTheReferenceToTheLastBit) {
  const Gguf file(HADAL_SOURCE "/tests/golden/dequantize.gguf");
  const StoredTensor& blocks = file.stored().at(GetParam());
  const std::vector<float> found = values_of(blocks), expected = values_of(file.stored().at("expected." + GetParam()));
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i)
    ASSERT_EQ(std::bit_cast<uint32_t>(found[i]), std::bit_cast<uint32_t>(expected[i]))
        << "value " << i << ": " << found[i] << " for " << expected[i];
  EXPECT_GT(std::accumulate(found.begin(), found.end(), 0.f, [](float sum, float v) { return sum + std::abs(v); }), 0);
}

TEST_P(Blocked, AnyRunOfBlocksIsThatPartOfTheWhole) {
  const Gguf file(HADAL_SOURCE "/tests/golden/dequantize.gguf");
  const StoredTensor& blocks = file.stored().at(GetParam());
  const std::vector<float> whole = values_of(blocks);
  const int64_t step = info_of(blocks.dtype).block_values;
  for (int64_t first = 0; first <= blocks.count(); first += step)
    for (int64_t count = 0; first + count <= blocks.count(); count += step) {
      std::vector<float> part(size_t(count) + 1, -1234.5f);
      to_f32(blocks, first, count, part.data());
      EXPECT_EQ(std::memcmp(part.data(), whole.data() + first, size_t(count) * sizeof(float)), 0) << first << " " << count;
      EXPECT_EQ(part.back(), -1234.5f) << "written beyond the end";
    }
}

INSTANTIATE_TEST_SUITE_P(Types, Blocked, testing::Values("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"),
                         [](const auto& info) { return info.param; });

template <class T>
void expect_plain(DType dtype, const std::vector<T>& stored, const std::vector<float>& expected) {
  std::string bytes(1, '?');  // the values begin misaligned
  bytes.append(reinterpret_cast<const char*>(stored.data()), stored.size() * sizeof(T));
  const StoredTensor tensor{dtype, {int64_t(stored.size())}, {}, view_of(bytes).data() + 1, bytes.size() - 1};
  EXPECT_EQ(values_of(tensor), expected) << name_of(dtype);
}

TEST(Dequantize, PlainTypesAtAnyAlignmentAndSize) {
  for (const size_t n : {0, 1, 7, 8, 15, 16, 17, 127}) {
    std::vector<float> expected(n);
    for (size_t i = 0; i < n; ++i) expected[i] = float(int(i)) - 7;
    const auto as = [&]<class T>(T, auto convert) {
      std::vector<T> stored;
      for (const float v : expected) stored.push_back(T(convert(v)));
      return stored;
    };
    const auto same = [](float v) { return v; };
    expect_plain(DType::f32, expected, expected);
    expect_plain(DType::f16, as(f16(), f32_to_f16), expected);
    expect_plain(DType::bf16, as(bf16(), f32_to_bf16), expected);
    expect_plain(DType::i64, as(int64_t(), same), expected);
    expect_plain(DType::i32, as(int32_t(), same), expected);
    expect_plain(DType::i16, as(int16_t(), same), expected);
    expect_plain(DType::i8, as(int8_t(), same), expected);
  }
  expect_plain<uint8_t>(DType::u8, {0, 1, 255}, {0, 1, 255});
  expect_plain<uint8_t>(DType::boolean, {0, 1}, {0, 1});
  expect_plain<uint8_t>(DType::f8e4m3, {0x00, 0x01, 0x38, 0xb8, 0x7e}, {0, 0x1p-9f, 1, -1, 448});
  const std::string not_a_number = "\x7f";
  EXPECT_TRUE(std::isnan(values_of({DType::f8e4m3, {1}, {}, view_of(not_a_number).data(), 1})[0]));
}

TEST(Dequantize, StridedTensorsAreGatheredInTheOrderOfTheirShape) {
  const std::string bytes = floats({0, 1, 2, 3, 4, 5});
  const StoredTensor transposed{DType::f32, {3, 2}, {1, 3}, view_of(bytes).data(), bytes.size()};
  EXPECT_THAT(values_of(transposed), ElementsAre(0, 3, 1, 4, 2, 5));
  float middle[3];
  to_f32(transposed, 2, 3, middle);
  EXPECT_THAT(middle, ElementsAre(1, 4, 2));
  const StoredTensor repeated{DType::f32, {2, 3}, {0, 2}, view_of(bytes).data(), bytes.size()};
  EXPECT_THAT(values_of(repeated), ElementsAre(0, 2, 4, 0, 2, 4));
}

}  // namespace
}  // namespace hadal::test
