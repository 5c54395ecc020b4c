// The choosing of codes: how near they come, that they stay inside an int8, and that nothing odd in a row upsets them.
#include "infer/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/error.h"
#include "core/pool.h"

namespace hadal {
namespace {

constexpr DType types[] = {DType::w8, DType::w4, DType::w3, DType::w2};

std::vector<float> gaussian(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = normal(random);
  return values;
}

struct Packed {
  std::vector<std::byte> blocks;
  std::vector<float> scale;
  std::vector<int32_t> sum;
  Weight weight;
  SquaredError error;
  Packed(DType type, int64_t rows, int64_t cols, const std::vector<float>& values, const QuantizeOptions& options = {})
      : blocks(size_t(packed_bytes(type, rows, cols))), scale(size_t(padded_rows(rows))), sum(scale.size()) {
    weight = {type, rows, cols, blocks.data(), scale.data(), sum.data()};
    const auto read = [&](int64_t row, float* out) { std::copy_n(values.data() + row * cols, cols, out); };
    error = pack_matrix(type, rows, cols, read, {blocks.data(), scale.data(), sum.data()}, "matrix", options);
  }
};

// Bounds just above what the search reaches (docs/formats.md).
TEST(Quantize, RelativeErrorOfGaussianRows) {
  const int64_t rows = 64, cols = 2048;
  const std::vector<float> values = gaussian(rows * cols, 1);
  const auto error = [&](DType type, bool thorough) { return Packed(type, rows, cols, values, {{}, thorough}).error.relative(); };
  EXPECT_LT(error(DType::w8, false), 0.0085);
  EXPECT_LT(error(DType::w4, false), 0.0765);
  EXPECT_LT(error(DType::w3, false), 0.153);
  EXPECT_LT(error(DType::w2, false), 0.325);
  for (const DType type : {DType::w4, DType::w3, DType::w2}) EXPECT_LT(error(type, true), error(type, false)) << name_of(type);
}

TEST(Quantize, TheReportedErrorIsTheRealOne) {
  std::vector<int8_t> integers;
  for (const DType type : types)
    for (const int64_t rows : {1, 15, 16, 17})
      for (const int64_t cols : {1, 7, 31, 127, 129}) {
        const std::vector<float> values = gaussian(rows * cols, unsigned(rows * cols));
        const Packed packed(type, rows, cols, values);
        integers.resize(size_t(padded_cols(cols)));
        std::vector<float> back(static_cast<size_t>(cols));
        SquaredError real;
        for (int64_t r = 0; r < rows; ++r) {
          const RowCodes codes = unpack_row(packed.weight, r);
          EXPECT_EQ(packed.sum[size_t(r)], integers_of(type, codes, integers.data()));
          values_of(codes, packed.weight, back.data());
          for (int64_t k = 0; k < cols; ++k) {
            const double x = values[size_t(r * cols + k)], d = x - double(back[size_t(k)]);
            real += {d * d, x * x};
          }
        }
        EXPECT_NEAR(packed.error.error, real.error, 1e-6 * real.norm) << name_of(type) << " " << rows << " x " << cols;
        EXPECT_NEAR(packed.error.norm, real.norm, 1e-6 * real.norm);
        for (int64_t r = rows; r < padded_rows(rows); ++r) EXPECT_EQ(packed.sum[size_t(r)], 0);
      }
}

// code * scale - offset before it becomes a byte.
TEST(Quantize, IntegersNeverWrap) {
  std::mt19937 random(3);
  for (const DType type : types)
    for (int round = 0; round < 200; ++round) {
      std::vector<float> row = gaussian(96, unsigned(round));
      for (size_t i = 0; i < row.size(); ++i)
        if (round % 4 == 1) row[i] = std::abs(row[i]);           // one-sided
      if (round % 4 == 2) row[random() % 96] *= 100;             // an outlier
      if (round % 4 == 3) std::fill_n(row.begin(), 32, row[0]);  // a constant group
      for (const bool thorough : {false, true}) {
        RowCodes codes;
        choose_codes(type, row, {{}, thorough}, codes);
        EXPECT_TRUE(std::isfinite(codes.scale));
        for (size_t k = 0; k < codes.code.size(); ++k) {
          if (type == DType::w8) {
            ASSERT_NE(int8_t(codes.code[k]), -128);
            continue;
          }
          const int scale = codes.groups[k / 32] & 15, value = codes.code[k] * scale - offset_of(type, scale, codes.groups[k / 32] >> 4);
          ASSERT_LT(codes.code[k], levels_of(type));
          ASSERT_GE(value, -128) << name_of(type) << " round " << round;
          ASSERT_LE(value, 127);
        }
      }
    }
}

TEST(Quantize, OddRows) {
  for (const DType type : types) {
    const Packed zeros(type, 3, 40, std::vector<float>(120, 0.f));
    EXPECT_EQ(zeros.error.relative(), 0);
    EXPECT_THAT(zeros.sum, testing::Each(0));
    for (const float size : {1e-38f, 1e-20f, 1e30f}) {
      std::vector<float> values = gaussian(256, 5);
      for (float& v : values) v *= size;
      EXPECT_TRUE(std::isfinite(Packed(type, 2, 128, values).scale[0])) << size;
    }
    for (const float odd : {NAN, INFINITY, -INFINITY}) {
      std::vector<float> values = gaussian(40 * 17, 6);
      values[16 * 40 + 3] = odd;
      try {
        Packed(type, 17, 40, values);
        FAIL() << "expected an Error";
      } catch (const Error& e) {
        EXPECT_STREQ(e.what(), "tensor matrix: row 16 has a value that is not finite and cannot be packed");
      }
    }
  }
}

TEST(Quantize, ImportanceMovesTheErrorElsewhere) {
  const int64_t rows = 16, cols = 256;
  const std::vector<float> values = gaussian(rows * cols, 9);
  std::vector<float> importance(size_t(cols), 1.f);
  for (int64_t k = 0; k < cols; k += 4) importance[size_t(k)] = 100;
  const auto error_of_important = [&](const QuantizeOptions& options) {
    std::vector<int8_t> integers(static_cast<size_t>(padded_cols(cols)));
    double error = 0;
    for (int64_t r = 0; r < rows; ++r) {
      RowCodes codes;
      choose_codes(DType::w4, std::span(values).subspan(size_t(r * cols), size_t(cols)), options, codes);
      integers_of(DType::w4, codes, integers.data());
      for (int64_t k = 0; k < cols; k += 4) {
        const double d = double(values[size_t(r * cols + k)]) - double(codes.scale) * integers[size_t(k)];
        error += d * d;
      }
    }
    return error;
  };
  EXPECT_LT(error_of_important({importance, false}), 0.8 * error_of_important({}));
}

TEST(Quantize, ThreadsDoNotChangeTheBytes) {
  const std::vector<float> values = gaussian(100 * 200, 4);
  const int before = pool().threads();
  set_pool_threads(1);
  const Packed one(DType::w4, 100, 200, values);
  set_pool_threads(3);
  const Packed three(DType::w4, 100, 200, values);
  set_pool_threads(before);
  EXPECT_EQ(one.blocks, three.blocks);
  EXPECT_EQ(one.scale, three.scale);
}

}  // namespace
}  // namespace hadal
