// Matrix products: against double precision, bit for bit between the vector levels, and independent of what else is computed beside them.
#include <array>

#include "levels.h"

namespace hadal {
namespace {

class Products : public EveryLevel {};
INSTANTIATE_TEST_SUITE_P(Levels, Products, testing::ValuesIn(levels()), level_name);

constexpr DType formats[] = {DType::f32, DType::bf16, DType::f16};

void gemm(const Kernels& k, DType b, const GemmArgs& args) {
  (b == DType::f32 ? k.gemm_f32_f32 : b == DType::bf16 ? k.gemm_f32_bf16 : k.gemm_f32_f16)(args);
}

struct Problem {
  int64_t m, n, k, lda, ldb, ldc;
  std::vector<float> a;
  Stored b;
  static constexpr float untouched = 12345;

  Problem(int64_t m_, int64_t n_, int64_t k_, DType type, int64_t gap)
      : m(m_),
        n(n_),
        k(k_),
        lda(k + gap),
        ldb(k + 2 * gap),
        ldc(n + gap),
        a(random_floats(m * lda, 1)),
        b(random_floats(n * ldb, 2), type) {}

  std::vector<float> run(const Kernels& kernels, DType type) const {
    std::vector<float> c(size_t(m * ldc), untouched);
    gemm(kernels, type, {.c = c.data(), .a = a.data(), .b = b.data, .m = m, .n = n, .k = k, .lda = lda, .ldb = ldb, .ldc = ldc});
    return c;
  }
};

const std::vector<std::array<int64_t, 3>>& shapes() {
  static const std::vector<std::array<int64_t, 3>> all = [] {
    std::vector<std::array<int64_t, 3>> s = {{0, 5, 16}, {5, 0, 16}, {3, 5, 0}, {1, 1, 1}, {64, 33, 300}, {130, 9, 1031}, {13, 70, 2049}};
    for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 15, 17})
      for (const int64_t n : {1, 2, 3, 4, 7, 8, 16, 17})
        for (const int64_t k : {1, 7, 8, 15, 16, 17, 127, 640}) s.push_back({m, n, k});
    return s;
  }();
  return all;
}

TEST_P(Products, GemmIsRight) {
  for (const DType type : formats)
    for (const auto [m, n, depth] : shapes())
      for (const int64_t gap : {0, 3}) {
        const Problem p(m, n, depth, type, gap);
        const std::vector<float> c = p.run(k, type);
        for (int64_t i = 0; i < m; ++i)
          for (int64_t j = 0; j < p.ldc; ++j) {
            const float got = c[size_t(i * p.ldc + j)];
            if (j >= n) {
              ASSERT_EQ(got, Problem::untouched) << "written beside row " << i << ", m n k " << m << ' ' << n << ' ' << depth;
              continue;
            }
            double want = 0, size = 1e-6;
            for (int64_t t = 0; t < depth; ++t) {
              const double product = double(p.a[size_t(i * p.lda + t)]) * double(p.b.values[size_t(j * p.ldb + t)]);
              want += product;
              size += std::abs(product);
            }
            ASSERT_NEAR(got, want, 1e-6 * size) << name_of(type) << " c[" << i << ", " << j << "], m n k " << m << ' ' << n << ' ' << depth;
          }
      }
}

// The order of addition that kernels.h promises, spelled out.
float dot_by_contract(const float* a, const float* b, int64_t k) {
  float sum[16] = {};
  for (int64_t i = 0; i < k; ++i) sum[i % 16] = std::fmaf(a[i], b[i], sum[i % 16]);
  for (int w = 8; w; w /= 2)
    for (int i = 0; i < w; ++i) sum[i] += sum[i + w];
  return sum[0];
}

TEST_P(Products, GemmAddsInTheOrderOfTheContract) {
  for (const DType type : formats)
    for (const auto [m, n, depth] : shapes()) {
      const Problem p(m, n, depth, type, 1);
      const std::vector<float> c = p.run(k, type);
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
          const float want = dot_by_contract(p.a.data() + i * p.lda, p.b.values.data() + j * p.ldb, depth);
          ASSERT_TRUE(same_bits(c[size_t(i * p.ldc + j)], want))
              << name_of(type) << " c[" << i << ", " << j << "] = " << c[size_t(i * p.ldc + j)] << ", expected " << want << ", m n k " << m
              << ' ' << n << ' ' << depth;
        }
    }
}

TEST_P(Products, ARowAloneHasTheSameBits) {
  for (const DType type : formats) {
    const int64_t m = 103, n = 37, depth = 2050;  // several blocks of a, partial tiles on every side
    const Problem p(m, n, depth, type, 0);
    const std::vector<float> c = p.run(k, type);
    for (int64_t i = 0; i < m; ++i)
      for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, n}, {5, 1}, {9, 17}}) {
        std::vector<float> alone(size_t(count), 0);
        const auto* b = static_cast<const std::byte*>(p.b.data) + bytes_of(type, first * depth);
        gemm(k, type,
             {.c = alone.data(),
              .a = p.a.data() + i * depth,
              .b = b,
              .m = 1,
              .n = count,
              .k = depth,
              .lda = depth,
              .ldb = depth,
              .ldc = count});
        for (int64_t j = 0; j < count; ++j)
          ASSERT_TRUE(same_bits(alone[size_t(j)], c[size_t(i * n + first + j)]))
              << name_of(type) << " row " << i << " column " << first + j;
      }
  }
}

TEST_P(Products, GemmPassesNanAndInfinityOn) {
  const float inf = INFINITY, nan = NAN;
  for (const DType type : formats)
    for (const int64_t depth : {1, 15, 17, 48}) {
      std::vector<float> a = random_floats(2 * depth, 3), b = random_floats(3 * depth, 4);
      a[size_t(depth - 1)] = nan;                                // row 0 of a
      a[size_t(2 * depth - 1)] = 1, b[size_t(depth - 1)] = inf;  // row 1 of a meets row 0 of b
      const Stored stored(b, type);
      float c[6];
      gemm(k, type, {.c = c, .a = a.data(), .b = stored.data, .m = 2, .n = 3, .k = depth, .lda = depth, .ldb = depth, .ldc = 3});
      for (int j = 0; j < 3; ++j) EXPECT_TRUE(std::isnan(c[j])) << name_of(type) << ' ' << depth << ' ' << j;
      EXPECT_EQ(c[3], inf);
      EXPECT_TRUE(std::isfinite(c[4]) && std::isfinite(c[5])) << "one row of b reached another, " << name_of(type) << ' ' << depth;
    }
}

TEST_P(Products, MixAddsInOrderOfK) {
  for (const DType type : {DType::f32, DType::f16})
    for (const int64_t m : {0, 1, 3, 4, 5, 8, 9})
      for (const int64_t n : {0, 1, 7, 8, 15, 16, 17, 64, 65, 127, 200})
        for (const int64_t depth : {0, 1, 7, 64}) {
          const int64_t ldp = depth + 1, ldv = n + 3, ldout = n + 2;
          const std::vector<float> p = random_floats(m * ldp, 5), before = random_floats(m * ldout, 6);
          const Stored v(random_floats(depth * ldv, 7), type);
          std::vector<float> out = before;
          const MixArgs args{
              .out = out.data(), .p = p.data(), .v = v.data, .m = m, .n = n, .k = depth, .ldp = ldp, .ldv = ldv, .ldout = ldout};
          (type == DType::f32 ? k.mix_f32_f32 : k.mix_f32_f16)(args);
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < ldout; ++j) {
              float want = before[size_t(i * ldout + j)];
              for (int64_t t = 0; t < depth && j < n; ++t) {
                const float left = p[size_t(i * ldp + t)], right = v.values[size_t(t * ldv + j)];
                want = std::fmaf(left, right, want);
              }
              ASSERT_TRUE(same_bits(out[size_t(i * ldout + j)], want))
                  << name_of(type) << " out[" << i << ", " << j << "], m n k " << m << ' ' << n << ' ' << depth;
            }
        }
}

}  // namespace
}  // namespace hadal
