// Ops over rows: the right kernel on the right rows, with strides, whatever the number of threads.
#include "ops/ops.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <random>

#include "core/pool.h"
#include "kernels/kernels.h"

namespace hadal {
namespace {

// A matrix with a gap after each row; the gap must stay as it is.
struct Rows {
  int64_t rows, cols, stride;
  std::vector<float> values;
  static constexpr float gap = 4321;

  Rows(int64_t r, int64_t c, unsigned seed = 0) : rows(r), cols(c), stride(c + 3), values(size_t(r * (c + 3)), gap) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < r; ++i)
      for (int64_t j = 0; j < c; ++j) at(i, j) = seed ? normal(engine) : 0;
  }
  float& at(int64_t r, int64_t c) { return values[size_t(r * stride + c)]; }
  float at(int64_t r, int64_t c) const { return values[size_t(r * stride + c)]; }
  Mat<float> mat() { return {values.data(), rows, cols, stride}; }
  Mat<const float> mat() const { return {values.data(), rows, cols, stride}; }
  bool gaps_untouched() const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = cols; c < stride; ++c)
        if (at(r, c) != gap) return false;
    return true;
  }
};

struct Matrix {  // a weight that owns its bytes
  std::vector<std::byte> bytes;
  std::vector<float> values;
  Weight weight;

  Matrix(DType type, int64_t rows, int64_t cols, unsigned seed) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal;
    bytes.resize(size_t(bytes_of(type, rows * cols)));
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float v = normal(engine);
      std::byte* at = bytes.data() + bytes_of(type, i);
      const uint16_t half = type == DType::bf16 ? f32_to_bf16(v) : f32_to_f16(v);
      std::memcpy(at, type == DType::f32 ? static_cast<const void*>(&v) : &half, size_t(bytes_of(type, 1)));
      values.push_back(type == DType::f32 ? v : type == DType::bf16 ? bf16_to_f32(half) : f16_to_f32(half));
    }
    weight = {type, rows, cols, bytes.data()};
  }
};

class Threads : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    before = pool().threads();
    set_pool_threads(GetParam());
  }
  void TearDown() override { set_pool_threads(before); }
  int before = 1;
};
INSTANTIATE_TEST_SUITE_P(Ops, Threads, testing::Values(1, 2, 3));

TEST_P(Threads, MatmulIsRightAtEverySize) {
  for (const DType type : {DType::f32, DType::bf16, DType::f16})
    for (const auto [m, n, k] : std::vector<std::array<int64_t, 3>>{
             {0, 7, 8}, {1, 1, 1}, {1, 127, 17}, {7, 16, 15}, {1, 3000, 100}, {9, 700, 300}, {100, 33, 1500}, {17, 1, 640}, {1, 5, 0}}) {
      const Rows x(m, k, 1);
      const Matrix w(type, n, k, 2);
      Rows out(m, n);
      matmul(out.mat(), x.mat(), w.weight);
      EXPECT_TRUE(out.gaps_untouched());
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
          double want = 0;
          for (int64_t t = 0; t < k; ++t) want += double(x.at(i, t)) * double(w.values[size_t(j * k + t)]);
          ASSERT_NEAR(out.at(i, j), want, 1e-6 * double(k + 1))
              << name_of(type) << " [" << i << ", " << j << "], m n k " << m << ' ' << n << ' ' << k;
        }
    }
}

TEST_P(Threads, ARowHasTheSameBitsAloneAndAmongOthers) {
  const int64_t m = 200, n = 520, k = 300;
  const Rows x(m, k, 3);
  const Matrix w(DType::bf16, n, k, 4);
  Rows all(m, n), one(1, n);
  matmul(all.mat(), x.mat(), w.weight);
  for (const int64_t r : {0, 1, 95, 96, 97, 199}) {
    matmul(one.mat(), x.mat().rows_from(r, 1), w.weight);
    for (int64_t c = 0; c < n; ++c)
      ASSERT_EQ(std::bit_cast<uint32_t>(one.at(0, c)), std::bit_cast<uint32_t>(all.at(r, c))) << r << ' ' << c;
  }
}

TEST_P(Threads, RowOpsReachEveryRowAndNothingElse) {
  for (const auto& shape : std::vector<std::array<int64_t, 2>>{{0, 8}, {1, 1}, {3, 17}, {127, 127}, {5, 20000}}) {
    const int64_t rows = shape[0], cols = shape[1];
    const Rows x(rows, cols, 5), y(rows, cols, 6);
    const Matrix w(DType::f32, cols, 1, 7), b(DType::f32, cols, 1, 8);
    const Kernels& k = kernels();
    const auto check = [&](const char* what, auto op, auto kernel) {
      Rows out = x, want = x;
      op(out.mat());
      for (int64_t r = 0; r < want.rows; ++r) kernel(want.mat().row(r), y.mat().row(r));
      EXPECT_EQ(out.values, want.values) << what << ", " << rows << " rows of " << cols;
    };
    const float *weight = w.weight.as_f32(), *bias = b.weight.as_f32();
    const int64_t n = cols;
    check(
        "add_bias", [&](Mat<float> m) { add_bias(m, b.weight); }, [&](float* to, const float*) { k.add(to, bias, n); });
    check(
        "add", [&](Mat<float> m) { add(m, y.mat()); }, [&](float* to, const float* from) { k.add(to, from, n); });
    check(
        "silu_mul", [&](Mat<float> m) { silu_mul(m, y.mat()); }, [&](float* to, const float* from) { k.silu_mul(to, from, n); });
    check(
        "rms_norm", [&](Mat<float> m) { rms_norm(m, y.mat(), w.weight, 1e-5f); },
        [&](float* to, const float* from) { k.rms_norm(to, from, weight, n, 1e-5f); });
    check(
        "layer_norm", [&](Mat<float> m) { layer_norm(m, y.mat(), w.weight, b.weight, 1e-5f); },
        [&](float* to, const float* from) { k.layer_norm(to, from, weight, bias, n, 1e-5f); });
  }
}

TEST_P(Threads, EmbedTakesRowsOfEveryFormat) {
  const int64_t dim = 37;
  const std::vector<int32_t> tokens = {3, 0, 10, 3, 7};
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    const Matrix table(type, 11, dim, 9);
    Rows out(int64_t(tokens.size()), dim);
    embed(out.mat(), table.weight, tokens);
    EXPECT_TRUE(out.gaps_untouched());
    for (int64_t r = 0; r < out.rows; ++r)
      for (int64_t c = 0; c < dim; ++c)
        ASSERT_EQ(out.at(r, c), table.values[size_t(tokens[size_t(r)] * dim + c)]) << name_of(type) << ' ' << r;
  }
}

TEST_P(Threads, RopeTurnsTheFirstColumnsOfEachHead) {
  const int64_t rows = 6, heads = 3, head_stride = 13, half = 4;
  const Rows cos(rows, half, 10), sin(rows, half, 11), before(rows, heads * head_stride, 12);
  for (const bool pairs : {false, true}) {
    Rows x = before;
    rope(x.mat(), heads, head_stride, {cos.mat(), sin.mat(), pairs});
    EXPECT_TRUE(x.gaps_untouched());
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t i = 0; i < half; ++i) {
          const int64_t first = h * head_stride + (pairs ? 2 * i : i), second = h * head_stride + (pairs ? 2 * i + 1 : i + half);
          const float a = before.at(r, first), b = before.at(r, second), c = cos.at(r, i), s = sin.at(r, i);
          ASSERT_FLOAT_EQ(x.at(r, first), a * c - b * s) << pairs << ' ' << r << ' ' << h << ' ' << i;
          ASSERT_FLOAT_EQ(x.at(r, second), b * c + a * s) << pairs << ' ' << r << ' ' << h << ' ' << i;
        }
        for (int64_t c = 2 * half; c < head_stride; ++c) ASSERT_EQ(x.at(r, h * head_stride + c), before.at(r, h * head_stride + c));
      }
  }
}

TEST(StoredRows, LoadAndStore) {
  for (const int64_t n : {0, 1, 7, 8, 15, 16, 17, 127}) {
    const Rows x(1, n, 13);
    for (const DType type : {DType::f32, DType::f16}) {
      std::vector<std::byte> bytes(size_t(bytes_of(type, n)));
      std::vector<float> back(size_t(n) + 1, 77);
      store_row(bytes.data(), type, x.mat().row(0), n);
      load_row(back.data(), type, bytes.data(), n);
      for (int64_t i = 0; i < n; ++i) {
        const float v = x.at(0, i);
        ASSERT_EQ(back[size_t(i)], type == DType::f32 ? v : f16_to_f32(f32_to_f16(v))) << i << " of " << n;
      }
      EXPECT_EQ(back.back(), 77);
    }
  }
}

TEST(OpsDeathTest, WrongShapesStop) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  Rows x(2, 8, 1), out(2, 4);
  const Matrix w(DType::bf16, 4, 9, 2), table(DType::f32, 4, 8, 3);
  EXPECT_DEATH(matmul(out.mat(), x.mat(), w.weight), "x.cols == w.cols");
  const std::vector<int32_t> beyond = {0, 4};
  EXPECT_DEATH(embed(x.mat(), table.weight, beyond), "token < table.rows");
}

}  // namespace
}  // namespace hadal
