// Attention over int8 pages: the scalar kernels against plain formulas, and every level against scalar, bit by bit.
#include <algorithm>

#include "levels.h"

namespace hadal {
namespace {

constexpr int64_t rows = attend_rows;

struct Part {  // random integers in the layout of a part, its scales behind them
  int64_t dims;
  std::vector<std::byte> bytes;
  Part(int64_t dims_, unsigned seed) : dims(dims_), bytes(size_t(rows * (dims_ + 4))) {
    std::mt19937 engine(seed);
    for (int64_t i = 0; i < rows * dims; ++i) bytes[size_t(i)] = std::byte(int8_t(int(engine() % 255) - 127));
    for (int64_t i = 0; i < rows; ++i) {
      const float scale = float(engine() % 1000) / 3e4f;
      std::memcpy(bytes.data() + rows * dims + 4 * i, &scale, 4);
    }
  }
  int at(int64_t row, int64_t d) const { return int(int8_t(bytes[size_t(row / 16 * 16 * dims + d / 4 * 64 + row % 16 * 4 + d % 4)])); }
  const float* scale() const { return reinterpret_cast<const float*>(bytes.data() + rows * dims); }
};

struct Queries {
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> sum;
  Queries(const Kernels& k, int64_t m, int64_t dims, unsigned seed) : q(size_t(m * dims)), scale(size_t(m)), sum(size_t(m)) {
    const std::vector<float> x = random_floats(m * dims, seed);
    for (int64_t i = 0; i < m; ++i) scale[size_t(i)] = k.quantize(q.data() + i * dims, x.data() + i * dims, dims, &sum[size_t(i)]) * 0.1f;
  }
};

const std::vector<int64_t> tile_rows = {0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 64};
const std::vector<int64_t> part_dims = {4, 8, 20, 64, 76, 128, 512};

std::vector<uint64_t> some_visible(int64_t m) {
  std::vector<uint64_t> visible(static_cast<size_t>(m));
  for (int64_t i = 0; i < m; ++i)
    visible[size_t(i)] = i % 5 == 3 ? 0 : i % 5 == 1 ? ~uint64_t(0) : (uint64_t(1) << (1 + i * 7 % 63)) - 1 - (i % 2 ? 0xf0 : 0);
  return visible;
}

class AttendKernels : public EveryLevel {};

TEST_P(AttendKernels, QuantizeIsTheNearestIntegerOfTheLargest) {
  for (const int64_t n : sizes) {
    std::vector<float> x = random_floats(n, unsigned(n), 3);
    if (n > 8) x[3] = 0, x[5] = -x[4];
    std::vector<int8_t> out(size_t(n + 1), 77), want(size_t(n + 1), 77);
    int32_t sum = -1, want_sum = -1;
    const float scale = k.quantize(out.data(), x.data(), n, &sum), want_scale = reference.quantize(want.data(), x.data(), n, &want_sum);
    EXPECT_TRUE(same_bits(scale, want_scale)) << n;
    EXPECT_EQ(out, want) << n;
    EXPECT_EQ(sum, want_sum);
    float most = 0;
    for (const float v : x) most = std::max(most, std::abs(v));
    EXPECT_FLOAT_EQ(scale, most / 127);
    for (int64_t i = 0; i < n; ++i) EXPECT_NEAR(float(out[size_t(i)]) * scale, x[size_t(i)], scale * 0.501f);
  }
  for (const float odd : {0.f, 1e-38f, INFINITY, NAN}) {
    const std::vector<float> x{odd, 0, odd};
    std::vector<int8_t> out(3), want(3);
    int32_t sum, want_sum;
    EXPECT_TRUE(same_bits(k.quantize(out.data(), x.data(), 3, &sum), reference.quantize(want.data(), x.data(), 3, &want_sum))) << odd;
    EXPECT_EQ(out, want) << odd;
  }
}

TEST_P(AttendKernels, ScoresAreExactProductsTimesScales) {
  for (const int64_t m : tile_rows)
    for (const int64_t dims : part_dims) {
      const Part part(dims, 1);
      const Queries q(reference, m, dims, 2);
      for (const bool add : {false, true}) {
        std::vector<float> scores = random_floats(m * rows, 3), want = scores;
        const std::vector<float> before = scores;
        ScoreArgs args{scores.data(), q.q.data(), q.scale.data(), q.sum.data(), part.bytes.data(), m, dims, dims, add};
        k.score_page(args);
        for (int64_t i = 0; i < m; ++i)
          for (int64_t row = 0; row < rows; ++row) {
            int32_t dot = 0;
            for (int64_t d = 0; d < dims; ++d) dot += q.q[size_t(i * dims + d)] * part.at(row, d);
            const float scale = part.scale()[row] * q.scale[size_t(i)];
            float& w = want[size_t(i * rows + row)];
            w = add ? std::fma(float(dot), scale, before[size_t(i * rows + row)]) : float(dot) * scale;
          }
        ASSERT_EQ(scores, want) << m << " rows, " << dims << " columns";
      }
    }
}

TEST_P(AttendKernels, SoftmaxOfPagesIsTheSoftmaxOfAllKeys) {
  for (const int64_t m : tile_rows) {
    std::vector<SoftmaxState> state(static_cast<size_t>(m)), want_state = state;
    std::vector<double> exact(size_t(m), 0.0), largest(size_t(m), -1e300);
    std::vector<std::vector<float>> seen(static_cast<size_t>(m));
    for (unsigned page = 0; page < 3; ++page) {
      const std::vector<float> scores = random_floats(m * rows, 10 + page, 4);
      std::vector<float> v_scale = random_floats(rows, 20 + page);
      for (float& v : v_scale) v = std::abs(v);
      const std::vector<uint64_t> visible = some_visible(m);
      std::vector<uint8_t> p(size_t(m * rows), 9), want_p = p;
      std::vector<float> factor(size_t(m), 5), weight(size_t(m), 6), want_factor = factor, want_weight = weight;
      k.softmax_page({p.data(), scores.data(), v_scale.data(), visible.data(), state.data(), factor.data(), weight.data(), m});
      reference.softmax_page(
          {want_p.data(), scores.data(), v_scale.data(), visible.data(), want_state.data(), want_factor.data(), want_weight.data(), m});
      EXPECT_EQ(p, want_p);
      EXPECT_EQ(factor, want_factor);
      EXPECT_EQ(weight, want_weight);
      for (size_t i = 0; i < state.size(); ++i)
        ASSERT_TRUE(same_bits(state[i].max, want_state[i].max) && same_bits(state[i].sum, want_state[i].sum)) << i;
      for (int64_t i = 0; i < m; ++i)
        for (int64_t row = 0; row < rows; ++row) {
          if (!(visible[size_t(i)] >> row & 1)) {
            EXPECT_EQ(p[size_t(i * rows + row)], visible[size_t(i)] != 0 ? 0 : 9);
            continue;
          }
          const float score = scores[size_t(i * rows + row)];
          seen[size_t(i)].push_back(score);
          const double weighed = std::exp(double(score) - double(state[size_t(i)].max)) * double(v_scale[size_t(row)]);
          EXPECT_NEAR(double(p[size_t(i * rows + row)]) * double(weight[size_t(i)]), weighed, double(weight[size_t(i)]) * 1.001);
        }
    }
    for (int64_t i = 0; i < m; ++i) {
      if (seen[size_t(i)].empty()) continue;
      const float top = *std::ranges::max_element(seen[size_t(i)]);
      double sum = 0;
      for (const float s : seen[size_t(i)]) sum += std::exp(double(s) - double(top));
      EXPECT_EQ(state[size_t(i)].max, top);
      EXPECT_NEAR(double(state[size_t(i)].sum), sum, sum * 1e-6);
    }
  }
}

TEST_P(AttendKernels, MixIsTheExactSumTimesTheWeight) {
  for (const int64_t m : tile_rows)
    for (const int64_t dims : part_dims) {
      const Part part(dims, 4);
      const int64_t stride = (dims + 15) / 16 * 16;
      std::vector<float> out = random_floats(m * stride, 5), want = out;
      const std::vector<float> factor = random_floats(m, 6), weight = random_floats(m, 7);
      std::vector<uint8_t> p(size_t(m * rows));
      std::mt19937 engine(8);
      for (uint8_t& v : p) v = engine() % 3 == 0 ? 255 : uint8_t(engine());
      const std::vector<uint64_t> visible = some_visible(m);
      k.mix_page({out.data(), p.data(), part.bytes.data(), visible.data(), factor.data(), weight.data(), m, dims, stride});
      for (int64_t i = 0; i < m; ++i)
        for (int64_t d = 0; d < dims; ++d) {
          int32_t sum = 0;
          for (int64_t row = 0; row < rows; ++row) sum += p[size_t(i * rows + row)] * part.at(row, d);
          float& w = want[size_t(i * stride + d)];
          if (visible[size_t(i)] != 0) w = std::fma(float(sum), weight[size_t(i)], w * factor[size_t(i)]);
          ASSERT_TRUE(same_bits(out[size_t(i * stride + d)], w)) << m << " rows, " << dims << " columns: row " << i << " column " << d;
        }
    }
}

TEST_P(AttendKernels, SketchesAreProductsWithSigns) {
  for (const int64_t dims : {int64_t(1), int64_t(7), int64_t(17), int64_t(128), int64_t(576)}) {
    std::mt19937_64 engine(9);
    std::vector<std::byte> sketch(size_t(8 * dims + 4 * rows));
    std::vector<float> size = random_floats(rows, 3);
    std::vector<uint64_t> negative(static_cast<size_t>(dims));
    for (uint64_t& word : negative) word = engine();
    std::memcpy(sketch.data(), negative.data(), negative.size() * 8);
    std::memcpy(sketch.data() + 8 * dims, size.data(), size.size() * 4);
    std::vector<int8_t> q(static_cast<size_t>(dims));
    for (int8_t& v : q) v = dims == 576 ? int8_t(127) : int8_t(int(engine() % 255) - 127);
    for (const uint64_t visible : {uint64_t(0), uint64_t(1), uint64_t(0xff00), ~uint64_t(0)}) {
      float want = -INFINITY;
      for (int64_t i = 0; i < rows; ++i) {
        int dot = 0;
        for (int64_t d = 0; d < dims; ++d) dot += negative[size_t(d)] >> i & 1 ? -q[size_t(d)] : q[size_t(d)];
        if (visible >> i & 1) want = std::max(want, float(dot) * size[size_t(i)]);
      }
      EXPECT_TRUE(same_bits(k.best_in_sketch(q.data(), sketch.data(), dims, visible), want)) << dims << " columns";
    }
  }
}

TEST_P(AttendKernels, MergeJoinsTwoSoftmaxes) {
  for (const int64_t n : sizes) {
    std::vector<float> out = random_floats(n, 1), want = out;
    const std::vector<float> before = out, other = random_floats(n, 2);
    for (const auto& [a, b] : {std::pair{0.5f, 1.25f}, {3.f, -90.f}, {-200.f, 1.f}, {2.f, 2.f}}) {
      SoftmaxState state{a, 3}, want_state = state;
      const SoftmaxState theirs{b, 2};
      out = want = before;
      k.merge(out.data(), &state, other.data(), &theirs, n);
      reference.merge(want.data(), &want_state, other.data(), &theirs, n);
      ASSERT_EQ(out, want);
      EXPECT_TRUE(same_bits(state.sum, want_state.sum));
      EXPECT_EQ(state.max, std::max(a, b));
      const double top = std::max(a, b);
      EXPECT_NEAR(double(state.sum), 3 * std::exp(a - top) + 2 * std::exp(b - top), 1e-5);
      for (size_t i = 0; i < out.size(); ++i)
        EXPECT_NEAR(double(out[i]), before[i] * std::exp(a - top) + other[i] * std::exp(b - top), 1e-5);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, AttendKernels, testing::ValuesIn(levels()), level_name);

}  // namespace
}  // namespace hadal
