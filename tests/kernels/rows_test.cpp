// Kernels over rows: against the scalar level or double precision, at sizes around the vector widths, with the values that break things.
#include <algorithm>

#include "levels.h"

namespace hadal {
namespace {

class Rows : public EveryLevel {};
INSTANTIATE_TEST_SUITE_P(Levels, Rows, testing::ValuesIn(levels()), level_name);

constexpr float inf = INFINITY;

// Distance in units of the last place of `want`, which is exact.
double ulps(float got, double want) {
  if (double(got) == want) return 0;
  const float near = float(want);
  const double unit = std::max(double(std::nextafter(std::abs(near), inf)) - std::abs(double(near)), 0x1p-149);
  return std::abs(double(got) - want) / unit;
}

TEST_P(Rows, RmsNorm) {
  for (const int64_t n : sizes) {
    const std::vector<float> x = random_floats(n, 1, 3), w = random_floats(n, 2);
    std::vector<float> out(size_t(n) + 1, 77);
    k.rms_norm(out.data(), x.data(), w.data(), n, 1e-5f);
    double squares = 0;
    for (const float v : x) squares += double(v) * double(v);
    for (int64_t i = 0; i < n; ++i) {
      const double want = double(x[size_t(i)]) / std::sqrt(squares / double(n) + 1e-5) * double(w[size_t(i)]);
      ASSERT_LE(ulps(out[size_t(i)], want), 6) << i << " of " << n;
    }
    EXPECT_EQ(out.back(), 77);
    std::vector<float> in_place = x;
    k.rms_norm(in_place.data(), in_place.data(), w.data(), n, 1e-5f);
    EXPECT_TRUE(std::equal(in_place.begin(), in_place.end(), out.begin(), same_bits)) << n;
  }
}

TEST_P(Rows, LayerNorm) {
  for (const int64_t n : sizes) {
    const std::vector<float> x = random_floats(n, 3, 2), w = random_floats(n, 4), b = random_floats(n, 5);
    std::vector<float> out(size_t(n) + 1, 77);
    k.layer_norm(out.data(), x.data(), w.data(), b.data(), n, 1e-3f);
    double mean = 0, variance = 0;
    for (const float v : x) mean += double(v) / double(n);
    for (const float v : x) variance += (double(v) - mean) * (double(v) - mean) / double(n);
    for (int64_t i = 0; i < n; ++i) {
      const double want = (double(x[size_t(i)]) - mean) / std::sqrt(variance + 1e-3) * double(w[size_t(i)]) + double(b[size_t(i)]);
      ASSERT_NEAR(out[size_t(i)], want, 4e-6) << i << " of " << n;
    }
    EXPECT_EQ(out.back(), 77);
  }
}

TEST_P(Rows, EveryLevelGivesTheBitsOfTheScalarOne) {
  for (const int64_t n : sizes)
    for (const float spread : {1.f, 40.f}) {
      const std::vector<float> x = random_floats(n, 31, spread), y = random_floats(n, 32), z = random_floats(n, 33);
      const auto same = [&](const char* what, auto run) {
        std::vector<float> got = x, want = x;
        got.push_back(7), want.push_back(7);
        run(k, got.data());
        run(reference, want.data());
        for (size_t i = 0; i < got.size(); ++i)
          ASSERT_TRUE(same_bits(got[i], want[i])) << what << ' ' << i << " of " << n << ": " << got[i] << ' ' << want[i];
      };
      same("rms_norm", [&](const Kernels& level, float* out) { level.rms_norm(out, out, y.data(), n, 1e-6f); });
      same("layer_norm", [&](const Kernels& level, float* out) { level.layer_norm(out, out, y.data(), z.data(), n, 1e-6f); });
      same("silu_mul", [&](const Kernels& level, float* out) { level.silu_mul(out, y.data(), n); });
      same("add_scaled", [&](const Kernels& level, float* out) { level.add_scaled(out, y.data(), 0.37f, n); });
      for (const float past : {-__builtin_inff(), 0.f, 100.f})
        same("softmax_block", [&](const Kernels& level, float* out) {
          SoftmaxState state{past, 3};
          const float factor = level.softmax_block(out, n, &state);
          out[n] = factor + state.sum + state.max;
        });
    }
}

// The sums of a row must not depend on where it lies, nor on which vector level runs.
TEST_P(Rows, NormsHaveTheSameBitsAtEveryAddress) {
  const int64_t n = 127;
  const std::vector<float> x = random_floats(n, 6), w(size_t(n), 1), b(size_t(n), 0);
  const Kernels vector = kernels_for(std::min(best_isa(), Isa::avx2));
  std::vector<float> rms(size_t(n), 0), layer(size_t(n), 0), out(size_t(n), 0);
  const Kernels& expected = GetParam() == Isa::scalar ? reference : vector;
  expected.rms_norm(rms.data(), x.data(), w.data(), n, 0);
  expected.layer_norm(layer.data(), x.data(), w.data(), b.data(), n, 0);
  for (size_t shift = 0; shift < 17; ++shift) {
    std::vector<float> moved(size_t(n) + shift);
    std::copy(x.begin(), x.end(), moved.begin() + int64_t(shift));
    k.rms_norm(out.data(), moved.data() + shift, w.data(), n, 0);
    EXPECT_TRUE(std::equal(out.begin(), out.end(), rms.begin(), same_bits)) << shift;
    k.layer_norm(out.data(), moved.data() + shift, w.data(), b.data(), n, 0);
    EXPECT_TRUE(std::equal(out.begin(), out.end(), layer.begin(), same_bits)) << shift;
  }
}

TEST_P(Rows, SiluMul) {
  for (const int64_t n : sizes) {
    const std::vector<float> gate = random_floats(n, 7, 8), up = random_floats(n, 8);
    std::vector<float> out = gate;
    out.push_back(77);
    k.silu_mul(out.data(), up.data(), n);
    for (int64_t i = 0; i < n; ++i) {
      const double g = gate[size_t(i)];
      ASSERT_LE(ulps(out[size_t(i)], g / (1 + std::exp(-g)) * double(up[size_t(i)])), 4) << g;
    }
    EXPECT_EQ(out.back(), 77);
  }
  std::vector<float> extreme = {0, -0.f, 200, -200, inf, NAN, 1e-30f, 88.5f, -88.5f, 3e38f, -3e38f};
  const std::vector<float> ones(extreme.size(), 1);
  k.silu_mul(extreme.data(), ones.data(), int64_t(extreme.size()));
  EXPECT_EQ(extreme[0], 0);
  EXPECT_EQ(extreme[1], 0);
  EXPECT_EQ(extreme[2], 200);
  EXPECT_NEAR(extreme[3], 0, 1e-37);
  EXPECT_EQ(extreme[4], inf);
  EXPECT_TRUE(std::isnan(extreme[5]));
  EXPECT_FLOAT_EQ(extreme[6], 5e-31f);
  EXPECT_FLOAT_EQ(extreme[7], 88.5f);
  EXPECT_NEAR(extreme[8], 0, 1e-36);
  EXPECT_EQ(extreme[9], 3e38f);
  EXPECT_EQ(extreme[10], 0);
}

TEST_P(Rows, AddAndScale) {
  for (const int64_t n : sizes) {
    const std::vector<float> x = random_floats(n, 9), y = random_floats(n, 10);
    const auto check = [&](const char* what, auto run, auto expected) {
      std::vector<float> out = x;
      out.push_back(77);
      run(out.data());
      for (size_t i = 0; i < size_t(n); ++i) ASSERT_TRUE(same_bits(out[i], expected(x[i], y[i]))) << what << ' ' << i << " of " << n;
      EXPECT_EQ(out.back(), 77) << what;
    };
    check(
        "add", [&](float* out) { k.add(out, y.data(), n); }, [](float a, float b) { return a + b; });
    check(
        "scale", [&](float* out) { k.scale(out, 0.3f, n); }, [](float a, float) { return a * 0.3f; });
    check(
        "add_scaled", [&](float* out) { k.add_scaled(out, y.data(), 0.3f, n); }, [](float a, float b) { return std::fmaf(0.3f, b, a); });
  }
}

TEST_P(Rows, ExpIsWithinTwoUlps) {
  std::vector<float> scores = {0};  // the maximum: what follows becomes exp(x)
  for (float x = 0; x > -105; x -= 0.00137f) scores.push_back(x);
  const std::vector<float> x = scores;
  SoftmaxState state;
  EXPECT_EQ(k.softmax_block(scores.data(), int64_t(scores.size()), &state), 0);
  double worst = 0;
  float at = 0;
  for (size_t i = 0; i < x.size(); ++i)
    if (const double off = ulps(scores[i], std::exp(double(x[i]))); off > worst) worst = off, at = x[i];
  EXPECT_LE(worst, 2) << "exp(" << at << ")";
  EXPECT_EQ(scores[0], 1);
  RecordProperty("ulps", std::to_string(worst));
}

TEST_P(Rows, SoftmaxInBlocksIsSoftmax) {
  for (const int64_t n : sizes) {
    if (n == 0) continue;
    const std::vector<float> x = random_floats(n, 11, 5);
    const double top = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (const float v : x) sum += std::exp(double(v) - top);
    for (const int64_t block : {1, 5, 16, 64, 1000}) {
      SoftmaxState state;
      std::vector<double> p;
      for (int64_t first = 0; first < n; first += block) {
        const int64_t count = std::min(block, n - first);
        std::vector<float> part(x.begin() + first, x.begin() + first + count);
        part.push_back(77);
        const float factor = k.softmax_block(part.data(), count, &state);
        for (double& v : p) v *= double(factor);
        p.insert(p.end(), part.begin(), part.end() - 1);
        ASSERT_EQ(part.back(), 77);
      }
      EXPECT_EQ(state.max, float(top));
      for (int64_t i = 0; i < n; ++i)
        ASSERT_NEAR(p[size_t(i)] / double(state.sum), std::exp(double(x[size_t(i)]) - top) / sum, 2e-6) << n << ' ' << block;
    }
  }
}

TEST_P(Rows, MaskedScoresBecomeExactlyZero) {
  for (const int64_t n : sizes) {
    SoftmaxState state;
    std::vector<float> masked(size_t(n), -inf);
    EXPECT_EQ(k.softmax_block(masked.data(), n, &state), 1) << n;  // all masked: nothing changes
    EXPECT_EQ(state.max, -inf);
    EXPECT_EQ(state.sum, 0);
    for (const float v : masked) ASSERT_TRUE(same_bits(v, 0)) << n;
    if (n < 2) continue;

    std::vector<float> scores = random_floats(n, 12);
    for (size_t i = 0; i < scores.size(); i += 2) scores[i] = -inf;
    EXPECT_EQ(k.softmax_block(scores.data(), n, &state), 0) << "the first block with a score";
    for (size_t i = 0; i < scores.size(); i += 2) ASSERT_TRUE(same_bits(scores[i], 0)) << i;
    const SoftmaxState before = state;
    std::fill(masked.begin(), masked.end(), -inf);
    EXPECT_EQ(k.softmax_block(masked.data(), n, &state), 1) << "a masked block later";
    EXPECT_TRUE(same_bits(state.sum, before.sum) && same_bits(state.max, before.max));
  }
}

TEST_P(Rows, SoftmaxShowsNan) {
  for (const size_t at : {0, 3, 15, 16}) {
    std::vector<float> scores = random_floats(17, 13);
    scores[at] = NAN;
    SoftmaxState state;
    k.softmax_block(scores.data(), 17, &state);
    EXPECT_TRUE(std::isnan(scores[at]) && std::isnan(state.sum)) << at;
  }
}

TEST_P(Rows, RopeHasTheSameBitsOnEveryLevel) {
  for (const int64_t half : {0, 1, 3, 4, 5, 8, 15, 16, 17, 32, 33, 64}) {
    const std::vector<float> x = random_floats(2 * half, 14), c = random_floats(half, 15), s = random_floats(half, 16);
    std::vector<float> halves = x, pairs = x;
    halves.push_back(77), pairs.push_back(77);
    k.rope_halves(halves.data(), c.data(), s.data(), half);
    k.rope_pairs(pairs.data(), c.data(), s.data(), half);
    for (size_t i = 0; i < size_t(half); ++i) {
      const size_t j = i + size_t(half);
      ASSERT_TRUE(same_bits(halves[i], x[i] * c[i] - x[j] * s[i]) && same_bits(halves[j], x[j] * c[i] + x[i] * s[i]))
          << i << " of " << half;
      const float a = x[2 * i], b = x[2 * i + 1];
      ASSERT_TRUE(same_bits(pairs[2 * i], a * c[i] - b * s[i]) && same_bits(pairs[2 * i + 1], b * c[i] + a * s[i])) << i << " of " << half;
    }
    EXPECT_EQ(halves.back() + pairs.back(), 2 * 77);
  }
}

TEST_P(Rows, EveryHalfConverts) {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = uint16_t(i);
  std::vector<float> from_bf16(all.size()), from_f16(all.size());
  k.f32_from_bf16(from_bf16.data(), all.data(), int64_t(all.size()));
  k.f32_from_f16(from_f16.data(), all.data(), int64_t(all.size()));
  for (size_t i = 0; i < all.size(); ++i) {
    ASSERT_TRUE(same_bits(from_bf16[i], bf16_to_f32(bf16(i)))) << i;
    const float want = f16_to_f32(f16(i));
    ASSERT_TRUE(std::isnan(want) ? std::isnan(from_f16[i]) : same_bits(from_f16[i], want)) << i;
  }
  std::vector<uint16_t> back(all.size());
  k.f16_from_f32(back.data(), from_f16.data(), int64_t(all.size()));
  for (size_t i = 0; i < all.size(); ++i) {
    const bool infinite = (i & 0x7fff) == 0x7c00;
    if (std::isnan(from_f16[i]))
      ASSERT_TRUE(std::isnan(f16_to_f32(back[i]))) << i;
    else
      ASSERT_EQ(back[i], infinite ? i - 1 : i);
  }
}

TEST_P(Rows, RoundingToF16) {
  std::vector<float> x;
  for (uint64_t u = 0; u <= 0xffffffff; u += 40503) x.push_back(std::bit_cast<float>(uint32_t(u)));
  // Around every f16: the value, the midpoint to the next, and the floats on both sides of each.
  for (uint32_t h = 0; h < 0x7bff; ++h) {
    const float value = f16_to_f32(f16(h)), middle = (value + f16_to_f32(f16(h + 1))) / 2;
    for (const float v : {value, middle, std::nextafter(middle, 0.f), std::nextafter(middle, inf)}) x.push_back(v), x.push_back(-v);
  }
  for (const float v : {65503.f, 65504.f, 65519.f, 65520.f, 65536.f, 3e38f, inf}) x.push_back(v), x.push_back(-v);
  std::vector<uint16_t> out(x.size());
  k.f16_from_f32(out.data(), x.data(), int64_t(x.size()));
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::isnan(x[i])) {
      ASSERT_TRUE(std::isnan(f16_to_f32(out[i]))) << i;
      continue;
    }
    ASSERT_EQ(out[i], f32_to_f16(std::clamp(x[i], -65504.f, 65504.f))) << x[i];
  }
}

TEST_P(Rows, ConversionsStopAtTheEnd) {
  for (const int64_t n : sizes) {
    const std::vector<float> x = random_floats(n, 17);
    std::vector<uint16_t> half(size_t(n) + 1, 7);
    std::vector<float> back(size_t(n) + 1, 77);
    k.f16_from_f32(half.data(), x.data(), n);
    k.f32_from_f16(back.data(), half.data(), n);
    for (size_t i = 0; i < size_t(n); ++i) ASSERT_TRUE(same_bits(back[i], f16_to_f32(f32_to_f16(x[i])))) << i << " of " << n;
    EXPECT_EQ(half.back(), 7);
    EXPECT_EQ(back.back(), 77);
    k.f32_from_bf16(back.data(), half.data(), n);
    for (size_t i = 0; i < size_t(n); ++i) ASSERT_TRUE(same_bits(back[i], bf16_to_f32(half[i]))) << i << " of " << n;
    EXPECT_EQ(back.back(), 77);
  }
}

TEST_P(Rows, ReadBytesReadsThemAll) {
  for (const int64_t words : {0, 1, 7, 31, 32, 33, 1000}) {
    std::vector<uint64_t> data;
    for (int64_t i = 0; i < words; ++i) data.push_back(0x9e3779b97f4a7c15u * uint64_t(i + 1));
    uint64_t want = 0;
    for (const uint64_t w : data) want ^= w;
    EXPECT_EQ(k.read_bytes(data.data(), words * 8), want) << words;
  }
}

TEST_P(Rows, FmaPeakCountsItsWork) {
  EXPECT_EQ(k.fma_peak(0), 0);
  EXPECT_GT(k.fma_peak(1), 0);
  EXPECT_EQ(k.fma_peak(10), 10 * k.fma_peak(1));
}

TEST(Dispatch, NamesAreReadAndUnknownOnesReported) {
  const char* names[] = {"scalar", "avx2", "avx512", "vnni", "amx"};
  for (const Isa isa : isa_levels) {
    Isa parsed;
    ASSERT_TRUE(parse_isa(names[int(isa)], &parsed));
    EXPECT_EQ(parsed, isa);
  }
  Isa untouched = Isa::avx2;
  for (const char* name : {"", "AVX2", "avx", "avx5120", "neon"}) EXPECT_FALSE(parse_isa(name, &untouched)) << name;
  EXPECT_EQ(untouched, Isa::avx2);

  const char* original = std::getenv("HADAL_ISA");
  const std::string kept = original ? original : "";
  const auto wish = [](const char* value) { value ? setenv("HADAL_ISA", value, 1) : unsetenv("HADAL_ISA"); };
  wish("scalar");
  EXPECT_EQ(unknown_isa(), nullptr);
  EXPECT_EQ(chosen_isa(), Isa::scalar);
  wish("amx");  // a wish lowers, it never raises
  EXPECT_EQ(chosen_isa(), best_isa());
  wish("fast");
  EXPECT_STREQ(unknown_isa(), "fast");
  EXPECT_EQ(chosen_isa(), best_isa());
  wish(nullptr);
  EXPECT_EQ(unknown_isa(), nullptr);
  EXPECT_EQ(chosen_isa(), best_isa());
  wish(original ? kept.c_str() : nullptr);
}

}  // namespace
}  // namespace hadal
