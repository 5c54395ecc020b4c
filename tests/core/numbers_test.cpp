// Number formats against tables made another way: from their definition, in double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/dtype.h"

namespace hadal {
namespace {

// The value of a sign, exponent, mantissa format by its definition; no special values.
double value_of(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, exponent = int(bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const double mantissa = double(bits & ((1u << mantissa_bits) - 1)) / double(1u << mantissa_bits);
  const double sign = bits >> (exponent_bits + mantissa_bits) & 1 ? -1 : 1;
  return sign * (exponent ? std::ldexp(1 + mantissa, exponent - bias) : std::ldexp(mantissa, 1 - bias));
}

TEST(Numbers, EveryF16) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const float v = f16_to_f32(f16(i));
    if ((i & 0x7c00) != 0x7c00) {
      ASSERT_EQ(double(v), value_of(i, 5, 10)) << i;
      ASSERT_EQ(std::signbit(v), bool(i & 0x8000)) << i;
      ASSERT_EQ(f32_to_f16(v), i);
    } else if (i & 0x3ff) {
      ASSERT_TRUE(std::isnan(v) && std::isnan(f16_to_f32(f32_to_f16(v)))) << i;
    } else {
      ASSERT_TRUE(std::isinf(v) && std::signbit(v) == bool(i & 0x8000) && f32_to_f16(v) == i) << i;
    }
  }
}

TEST(Numbers, EveryBf16) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const float v = bf16_to_f32(bf16(i));
    if ((i & 0x7f80) != 0x7f80) {
      ASSERT_EQ(double(v), value_of(i, 8, 7)) << i;
      ASSERT_EQ(f32_to_bf16(v), i);
    } else if (i & 0x7f) {
      ASSERT_TRUE(std::isnan(v) && std::isnan(bf16_to_f32(f32_to_bf16(v)))) << i;
    } else {
      ASSERT_TRUE(std::isinf(v) && f32_to_bf16(v) == i) << i;
    }
  }
}

TEST(Numbers, EveryF8E4M3) {
  for (uint32_t i = 0; i < 256; ++i) {
    const float v = f8e4m3_to_f32(uint8_t(i));
    if ((i & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(v)) << i;
    } else {
      EXPECT_EQ(double(v), value_of(i, 4, 3)) << i;
      EXPECT_EQ(std::signbit(v), bool(i & 0x80)) << i;
    }
  }
  EXPECT_EQ(f8e4m3_to_f32(0x7e), 448);
  EXPECT_EQ(f8e4m3_to_f32(0x01), 0x1p-9f);
}

// Between neighbours a and b: below the middle to a, above to b, the middle to the one with an even code.
template <class To, class From>
void expect_nearest_even(uint32_t low, To to, From from) {
  const double a = double(from(low)), b = double(from(low + 1)), middle = (a + b) / 2;
  const float at = float(middle);  // exact: one bit more than the format has
  ASSERT_EQ(double(at), middle);
  const uint32_t even = low & 1 ? low + 1 : low, sign = 0x8000;
  ASSERT_EQ(to(at), even) << low;
  ASSERT_EQ(to(std::nextafter(at, 0.f)), low) << low;
  ASSERT_EQ(to(std::nextafter(at, INFINITY)), low + 1) << low;
  ASSERT_EQ(to(-at), even | sign) << low;
  ASSERT_EQ(to(-std::nextafter(at, 0.f)), low | sign) << low;
}

TEST(Numbers, RoundingToF16) {
  for (uint32_t low = 0; low < 0x7bff; ++low) expect_nearest_even(low, f32_to_f16, [](uint32_t i) { return f16_to_f32(f16(i)); });
  EXPECT_EQ(f32_to_f16(std::nextafter(65520.f, 0.f)), 0x7bff);
  for (const float v : {65520.f, 65536.f, 3e38f, INFINITY}) {
    EXPECT_EQ(f32_to_f16(v), 0x7c00) << v;
    EXPECT_EQ(f32_to_f16(-v), 0xfc00) << v;
  }
  EXPECT_EQ(f32_to_f16(0x1p-25f), 0);
  EXPECT_EQ(f32_to_f16(std::nextafter(0x1p-25f, 1.f)), 1);
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(NAN))));
}

TEST(Numbers, RoundingToBf16) {
  for (uint32_t low = 1; low < 0x7f7f; ++low) expect_nearest_even(low, f32_to_bf16, [](uint32_t i) { return bf16_to_f32(bf16(i)); });
  EXPECT_EQ(f32_to_bf16(3.4e38f), 0x7f80);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001)))));  // whose payload lies in the lower half
}

TEST(Numbers, SizesOfTypes) {
  EXPECT_EQ(bytes_of(DType::bf16, 17), 34);
  EXPECT_EQ(bytes_of(DType::q4_0, 64), 36);
  EXPECT_EQ(bytes_of(DType::q6_k, 512), 420);
  EXPECT_EQ(name_of(DType::f8e4m3), "F8_E4M3");
  EXPECT_EQ(name_of(DType::q6_k), "Q6_K");
}

}  // namespace
}  // namespace hadal
