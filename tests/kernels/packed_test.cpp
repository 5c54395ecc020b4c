// Products with packed weights: every level gives the bits of the scalar one, which is held against the layout's own words.
#include <array>
#include <random>

#include "core/packed.h"
#include "levels.h"

namespace hadal {

void fill_software_tiles(Kernels& k);  // kernels/amx/packed.cpp once more, see CMakeLists.txt

namespace {

// Every level of this machine, and the AMX kernels over a software model of the tiles, which wants no more than VNNI.
std::vector<Kernels> tables() {
  std::vector<Kernels> all;
  for (const Isa isa : levels()) all.push_back(kernels_for(isa));
  if (best_isa() < Isa::vnni) return all;
  all.push_back(kernels_for(Isa::vnni));
  fill_software_tiles(all.back());
  all.back().name = "software_tiles";
  return all;
}

class PackedProducts : public testing::TestWithParam<Kernels> {
 protected:
  const Kernels &k = GetParam(), reference = kernels_for(Isa::scalar);
};
INSTANTIATE_TEST_SUITE_P(Levels, PackedProducts, testing::ValuesIn(tables()),
                         [](const testing::TestParamInfo<Kernels>& info) { return std::string(info.param.name); });

constexpr DType formats[] = {DType::w8, DType::w4, DType::w3, DType::w2};

void gemm(const Kernels& k, DType type, const PackedArgs& args) {
  (type == DType::w8 ? k.gemm_u8_w8 : type == DType::w4 ? k.gemm_u8_w4 : type == DType::w3 ? k.gemm_u8_w3 : k.gemm_u8_w2)(args);
}

// The integer of row c, column k of a block, read off the text of core/packed.h.
int integer_at(DType type, const uint8_t* block, int64_t c, int64_t k) {
  if (type == DType::w8) return int8_t(block[64 * (k / 4) + c * 4 + k % 4]);
  const int64_t j = k % 4, byte = c * 4 + j;
  int code;
  if (type == DType::w4) {
    const int64_t h = k / 64, r = k % 64 / 4;
    code = h == 0 ? block[64 * r + byte] & 15 : block[64 * r + byte] >> 4;
  } else {
    const int64_t g = k / 32, r = k % 32 / 4;
    code = block[64 * r + byte] >> (2 * g) & 3;
    if (type == DType::w3) code += 4 * (block[512 + 64 * (r / 2) + byte] >> (r % 2 * 4 + g) & 1);
  }
  const int group = block[info_of(type).block_bytes - 64 + k / 32 * 16 + c], s = group & 15, z = group >> 4;
  return int8_t(code * s - (s * (z + 9) >> (type == DType::w4 ? 1 : type == DType::w3 ? 2 : 3)));
}

enum class Bytes { random, lowest, highest };  // of the weights

struct Problem {
  DType type;
  int64_t m, n, k, lda, ldc;
  std::vector<uint8_t> a, w;
  std::vector<float> a_scale, w_scale;
  std::vector<int32_t> w_sum;

  Problem(DType t, int64_t m_, int64_t n_, int64_t k_, int64_t gap, Bytes bytes = Bytes::random)
      : type(t), m(m_), n(n_), k(k_), lda(padded_cols(k) + gap), ldc(n + gap) {
    std::mt19937 random(unsigned(m * 131 + n * 17 + k));
    a.assign(size_t(m * lda), 77);
    for (int64_t r = 0; r < m; ++r)
      for (int64_t i = 0; i < padded_cols(k); ++i)
        a[size_t(r * lda + i)] = i >= k ? 128 : bytes == Bytes::random ? uint8_t(1 + random() % 255) : (i + r) % 2 ? 1 : 255;
    w.resize(size_t(packed_bytes(type, n, k)));
    for (uint8_t& b : w) b = bytes == Bytes::random ? uint8_t(random()) : bytes == Bytes::lowest ? 0x81 : 0x7f;
    a_scale = random_floats(m, 1), w_scale = random_floats(padded_rows(n), 2);
    for (int64_t r = 0; r < padded_rows(n); ++r) {
      int32_t sum = 0;
      for (int64_t i = 0; i < padded_cols(k); ++i) sum += integer(r, i);
      w_sum.push_back(sum);
    }
  }

  int integer(int64_t row, int64_t col) const {
    const uint8_t* panel = w.data() + row / panel_rows * panel_bytes(type, k);
    return integer_at(type, panel + col / block_cols * info_of(type).block_bytes, row % panel_rows, col % block_cols);
  }

  std::vector<float> run(const Kernels& kernels, int64_t first = 0, int64_t rows = -1) const {
    if (rows < 0) rows = m;
    std::vector<float> c(size_t(rows * ldc), 12345);
    const int64_t blocks = padded_cols(k) / block_cols;
    std::vector<std::byte> scratch(size_t(blocks * 4096));
    gemm(kernels, type,
         {.c = c.data(),
          .a = a.data() + first * lda,
          .a_scale = a_scale.data() + first,
          .w = w.data(),
          .w_scale = w_scale.data(),
          .w_sum = w_sum.data(),
          .m = rows,
          .n = n,
          .k_blocks = blocks,
          .lda = lda,
          .ldc = ldc,
          .scratch = scratch.data()});
    return c;
  }
};

bool equal(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

const std::vector<std::array<int64_t, 3>>& shapes() {
  static const std::vector<std::array<int64_t, 3>> all = [] {
    std::vector<std::array<int64_t, 3>> s = {{64, 33, 300}, {40, 70, 1031}, {129, 48, 257}, {1, 129, 640}, {3, 127, 127}};
    for (const int64_t m : {0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 31})
      for (const int64_t n : {0, 1, 7, 15, 16, 17, 31, 32, 48})
        for (const int64_t k : {1, 127, 128, 129, 384}) s.push_back({m, n, k});
    return s;
  }();
  return all;
}

TEST_P(PackedProducts, AreExactSumsTimesTheirScales) {
  for (const DType type : formats)
    for (const auto [m, n, depth] : {std::array<int64_t, 3>{3, 17, 129}, {9, 16, 300}, {1, 31, 127}}) {
      const Problem p(type, m, n, depth, 3);
      const std::vector<float> c = p.run(k);
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < p.ldc; ++j) {
          int64_t sum = 0;
          for (int64_t q = 0; j < n && q < depth; ++q) sum += (int(p.a[size_t(i * p.lda + q)]) - 128) * p.integer(j, q);
          const float want = j < n ? float(sum) * p.w_scale[size_t(j)] * p.a_scale[size_t(i)] : 12345;
          ASSERT_TRUE(same_bits(c[size_t(i * p.ldc + j)], want))
              << name_of(type) << " " << m << "x" << n << "x" << depth << " at " << i << ", " << j;
        }
    }
}

TEST_P(PackedProducts, GiveTheBitsOfTheScalarLevel) {
  for (const DType type : formats)
    for (const auto [m, n, depth] : shapes()) {
      const Problem p(type, m, n, depth, n % 2);
      ASSERT_TRUE(equal(p.run(k), p.run(reference))) << name_of(type) << " " << m << "x" << n << "x" << depth;
    }
}

TEST_P(PackedProducts, BearTheExtremes) {
  for (const DType type : formats)
    for (const Bytes bytes : {Bytes::lowest, Bytes::highest})
      for (const int64_t m : {1, 5, 13}) {
        const Problem p(type, m, 16, 11008, 0, bytes);
        ASSERT_TRUE(equal(p.run(k), p.run(reference))) << name_of(type) << " " << m << " rows";
      }
}

TEST_P(PackedProducts, ARowDoesNotDependOnItsNeighbours) {
  for (const DType type : formats) {
    const Problem p(type, 29, 40, 300, 0);
    const std::vector<float> together = p.run(k);
    for (int64_t r = 0; r < p.m; ++r) {
      const std::vector<float> alone = p.run(k, r, 1);
      ASSERT_EQ(0, std::memcmp(alone.data(), together.data() + r * p.ldc, size_t(p.n) * sizeof(float))) << "row " << r;
    }
  }
}

TEST_P(PackedProducts, QuantizedRows) {
  for (const int64_t n : sizes) {
    const int64_t padded = padded_cols(n);
    for (const float spread : {0.f, 1e-3f, 1.f, 3e4f}) {
      std::vector<float> x = random_floats(n, 5);
      for (float& v : x) v *= spread;
      if (n > 3) x[size_t(n) - 1] = -5 * spread;
      std::vector<uint8_t> got(size_t(padded) + 1, 9), want(size_t(padded) + 1, 9);
      const float scale = k.u8_from_f32(got.data(), x.data(), n, padded),
                  expected = reference.u8_from_f32(want.data(), x.data(), n, padded);
      ASSERT_TRUE(same_bits(scale, expected)) << n;
      ASSERT_EQ(got, want) << n;
      for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(x[size_t(i)], (int(got[size_t(i)]) - 128) * scale, scale * 0.5001f);
      for (int64_t i = n; i < padded; ++i) ASSERT_EQ(got[size_t(i)], 128);
    }
  }
  const float strange[] = {1, std::nanf(""), -2, 3};
  uint8_t got[128], want[128];
  EXPECT_TRUE(same_bits(k.u8_from_f32(got, strange, 4, 128), reference.u8_from_f32(want, strange, 4, 128)));
  EXPECT_EQ(0, std::memcmp(got, want, sizeof got)) << "a NaN";
}

// Against sums over the matrix itself, whose element (i, j) is (-1)^(number of bits set in both) / sqrt(run).
TEST_P(PackedProducts, RotatedRuns) {
  for (const int64_t run : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512})
    for (const int64_t runs : {0, 1, 3, 5}) {
      const int64_t n = run * runs;
      std::vector<float> x = random_floats(n + 1, 7, 1), got = x, want = x;
      k.rotate(got.data(), n, run);
      reference.rotate(want.data(), n, run);
      ASSERT_TRUE(equal(got, want)) << "runs of " << run;
      for (int64_t i = 0; i < n; ++i) {
        double sum = 0;
        for (int64_t j = 0; j < run; ++j)
          sum += (__builtin_popcountll(uint64_t(i % run & j)) % 2 ? -1. : 1.) * double(x[size_t(i / run * run + j)]);
        ASSERT_NEAR(got[size_t(i)], sum / std::sqrt(double(run)), 1e-5) << "runs of " << run;
      }
      ASSERT_EQ(got[size_t(n)], x[size_t(n)]);
      k.rotate(got.data(), n, run);
      for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(got[size_t(i)], x[size_t(i)], 1e-5) << "there and back";
    }
}

TEST_P(PackedProducts, ThePeakCountsItsOperations) { EXPECT_GT(k.integer_peak(1000), 1000); }

}  // namespace
}  // namespace hadal
