// Attention of training: the scalar kernels in double against plain formulas and finite differences, every level against those.
#include "training.h"

namespace hadal {
namespace {

struct Shape {
  int64_t batches = 1, queries = 5, keys = 5, heads = 2, kv_heads = 1, dim = 4, value_dim = 4, query_offset = 0;
  int64_t window = 0, sinks = 0, selected_heads = 0, selected_rows = 1;  // selected_heads 0: all keys
};

std::ostream& operator<<(std::ostream& out, const Shape& s) {
  return out << s.batches << " x " << s.queries << " queries, " << s.keys << " keys, heads " << s.heads << "/" << s.kv_heads << ", dim "
             << s.dim << "/" << s.value_dim << ", offset " << s.query_offset << ", window " << s.window << " + " << s.sinks << ", selected "
             << s.selected_heads << " x " << s.selected_rows;
}

template <class T>
Heads<T> dense(T* data, int64_t time, int64_t heads, int64_t dim) {
  return {data, time * heads * dim, heads * dim, dim};
}

template <class T>
struct Problem {
  Shape s;
  std::vector<T> q, k, v, out, dout, dq, dk, dv;
  std::vector<Wide<T>> lse;
  std::vector<uint64_t> words;

  explicit Problem(const Shape& s_) : s(s_) {
    const int64_t of_q = s.batches * s.queries * s.heads, of_k = s.batches * s.keys * s.kv_heads;
    q = random_numbers<T>(of_q * s.dim, 1), k = random_numbers<T>(of_k * s.dim, 2), v = random_numbers<T>(of_k * s.value_dim, 3);
    dout = random_numbers<T>(of_q * s.value_dim, 4);
    out.resize(dout.size()), dq.resize(q.size()), dk.resize(k.size()), dv.resize(v.size());
    lse.resize(size_t(of_q));
    std::mt19937_64 engine(5);
    words.resize(size_t(s.batches * s.selected_heads * ((s.queries + s.selected_rows - 1) / s.selected_rows) * ((s.keys + 63) / 64)));
    for (uint64_t& w : words) w = engine() % 3 == 0 ? ~uint64_t(0) : engine() % 2 == 0 ? 0 : engine();
  }
  template <class U>
  explicit Problem(const Problem<U>& o) : Problem(o.s) {  // the same numbers
    q = converted<T>(o.q), k = converted<T>(o.k), v = converted<T>(o.v), dout = converted<T>(o.dout);
  }

  AttentionArgs<T> args() {
    return {.q = dense<const T>(q.data(), s.queries, s.heads, s.dim),
            .k = dense<const T>(k.data(), s.keys, s.kv_heads, s.dim),
            .v = dense<const T>(v.data(), s.keys, s.kv_heads, s.value_dim),
            .out = dense<T>(out.data(), s.queries, s.heads, s.value_dim),
            .lse = lse.data(),
            .batches = s.batches,
            .queries = s.queries,
            .keys = s.keys,
            .heads = s.heads,
            .kv_heads = s.kv_heads,
            .dim = s.dim,
            .value_dim = s.value_dim,
            .query_offset = s.query_offset,
            .scale = Wide<T>(1 / std::sqrt(double(s.dim))),
            .mask = {.window = s.window,
                     .sinks = s.sinks,
                     .selected = s.selected_heads > 0 ? words.data() : nullptr,
                     .selected_heads = std::max<int64_t>(1, s.selected_heads),
                     .selected_rows = s.selected_rows}};
  }
  void forward(const TrainingKernels<T>& kernels) {
    const AttentionArgs<T> a = args();
    Scratch scratch;
    for (int64_t task = 0; task < a.tasks(); ++task) kernels.attention(a, task, scratch.of(kernels.attention_scratch(a)));
  }
  void backward(const TrainingKernels<T>& kernels) {
    const AttentionGradArgs<T> g{.forward = args(),
                                 .dout = dense<const T>(dout.data(), s.queries, s.heads, s.value_dim),
                                 .dq = dense<T>(dq.data(), s.queries, s.heads, s.dim),
                                 .dk = dense<T>(dk.data(), s.keys, s.kv_heads, s.dim),
                                 .dv = dense<T>(dv.data(), s.keys, s.kv_heads, s.value_dim)};
    Scratch scratch;
    for (int64_t task = 0; task < g.forward.tasks(); ++task)
      kernels.attention_backward(g, task, scratch.of(kernels.attention_backward_scratch(g.forward)));
  }
  std::vector<Wide<T>> block_scores(const TrainingKernels<T>& kernels) {
    const AttentionArgs<T> a = args();
    std::vector<Wide<T>> best(size_t(s.batches * s.kv_heads * s.queries * ((s.keys + 63) / 64)), 7);
    Scratch scratch;
    for (int64_t task = 0; task < a.tasks(); ++task)
      kernels.block_scores(a, best.data(), task, scratch.of(kernels.block_scores_scratch(a)));
    return best;
  }
  bool sees(int64_t b, int64_t t, int64_t h, int64_t key) const {
    const int64_t own = s.query_offset + t;
    if (key > own) return false;
    if (s.window > 0 && key <= own - s.window && key >= s.sinks) return false;
    if (s.selected_heads == 0) return true;
    const int64_t rows = (s.queries + s.selected_rows - 1) / s.selected_rows, blocks = (s.keys + 63) / 64;
    const int64_t head = b * s.selected_heads + (s.selected_heads > 1 ? h / (s.heads / s.kv_heads) : 0);
    return words[size_t((head * rows + t / s.selected_rows) * blocks + key / 64)] >> key % 64 & 1;
  }
};

const std::vector<Shape> small = {
    {},
    {.batches = 2, .queries = 3, .keys = 7, .heads = 4, .kv_heads = 2, .dim = 3, .value_dim = 5, .query_offset = 4},
    {.queries = 6, .keys = 6, .window = 2, .sinks = 1},
    {.queries = 4, .keys = 4, .query_offset = 4},
    {.queries = 70, .keys = 70, .heads = 1, .dim = 2, .value_dim = 2, .selected_heads = 1},
    {.queries = 5, .keys = 67, .heads = 4, .kv_heads = 2, .query_offset = 62, .selected_heads = 2, .selected_rows = 2}};

TEST(TrainingAttention, IsSoftmaxOfTheVisibleKeys) {
  for (const Shape& s : small) {
    Problem<double> p(s);
    p.forward(training_kernels_for(Isa::scalar).f64);
    const double scale = 1 / std::sqrt(double(s.dim));
    for (int64_t b = 0; b < s.batches; ++b)
      for (int64_t t = 0; t < s.queries; ++t)
        for (int64_t h = 0; h < s.heads; ++h) {
          std::vector<double> want(size_t(s.value_dim), 0.0);
          double sum = 0;
          for (int64_t key = 0; key < s.keys; ++key) {
            if (!p.sees(b, t, h, key)) continue;
            const int64_t kv = (b * s.keys + key) * s.kv_heads + h / (s.heads / s.kv_heads);
            double score = 0;
            for (int64_t d = 0; d < s.dim; ++d)
              score += p.q[size_t(((b * s.queries + t) * s.heads + h) * s.dim + d)] * p.k[size_t(kv * s.dim + d)];
            sum += std::exp(scale * score);
            for (int64_t d = 0; d < s.value_dim; ++d) want[size_t(d)] += std::exp(scale * score) * p.v[size_t(kv * s.value_dim + d)];
          }
          for (int64_t d = 0; d < s.value_dim; ++d)
            ASSERT_NEAR(p.out[size_t(((b * s.queries + t) * s.heads + h) * s.value_dim + d)], sum > 0 ? want[size_t(d)] / sum : 0, 1e-12)
                << s << ": query " << t << " head " << h;
          const double lse = p.lse[size_t((b * s.heads + h) * s.queries + t)];
          ASSERT_TRUE(sum > 0 ? std::abs(lse - std::log(sum)) < 1e-12 : lse == -INFINITY) << s << ": " << lse;
        }
  }
}

TEST(TrainingAttention, BlockScoresAreTheBestOfAGroupsHeads) {
  for (const Shape& s : small) {
    Problem<double> p(s);
    const AttentionArgs<double> a = p.args();
    const std::vector<double> found = p.block_scores(training_kernels_for(Isa::scalar).f64);
    const int64_t blocks = (s.keys + 63) / 64, group = s.heads / s.kv_heads;
    for (int64_t b = 0; b < s.batches; ++b)
      for (int64_t kv = 0; kv < s.kv_heads; ++kv)
        for (int64_t t = 0; t < s.queries; ++t) {
          std::vector<double> want(size_t(blocks), -INFINITY);
          for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
            std::vector<double> of_head(size_t(blocks), -INFINITY);
            for (int64_t key = 0; key < s.keys; ++key) {
              double score = 0;
              for (int64_t d = 0; d < s.dim; ++d)
                score += p.q[size_t(((b * s.queries + t) * s.heads + h) * s.dim + d)] *
                         p.k[size_t(((b * s.keys + key) * s.kv_heads + kv) * s.dim + d)];
              if (p.sees(b, t, h, key)) of_head[size_t(key / 64)] = std::max(of_head[size_t(key / 64)], a.scale * score);
            }
            const double most = *std::max_element(of_head.begin(), of_head.end());
            for (int64_t block = 0; block < blocks; ++block)
              if (of_head[size_t(block)] > -INFINITY) want[size_t(block)] = std::max(want[size_t(block)], of_head[size_t(block)] - most);
          }
          for (int64_t block = 0; block < blocks; ++block) {
            const double got = found[size_t(((b * s.kv_heads + kv) * s.queries + t) * blocks + block)];
            ASSERT_TRUE(got == want[size_t(block)] || std::abs(got - want[size_t(block)]) < 1e-12)
                << s << ": query " << t << " block " << block << ": " << got;
          }
        }
  }
}

TEST(TrainingAttention, GradientsAreFiniteDifferences) {
  const TrainingKernels<double> kernels = training_kernels_for(Isa::scalar).f64;
  for (const Shape& s : small) {
    Problem<double> p(s);
    const auto loss = [&] {
      p.forward(kernels);
      double sum = 0;
      for (size_t i = 0; i < p.out.size(); ++i) sum += p.out[i] * p.dout[i];
      return sum;
    };
    loss();
    p.backward(kernels);
    const auto check = [&](std::vector<double>& x, const std::vector<double>& dx, const char* name) {
      for (size_t i = 0; i < x.size(); i += 1 + x.size() / 40) {
        const double kept = x[i], step = 1e-5;
        x[i] = kept + step;
        const double above = loss();
        x[i] = kept - step;
        const double below = loss();
        x[i] = kept;
        ASSERT_NEAR(dx[i], (above - below) / (2 * step), 1e-8) << s << ": d" << name << "[" << i << "]";
      }
    };
    check(p.q, p.dq, "q");
    check(p.k, p.dk, "k");
    check(p.v, p.dv, "v");
  }
}

class TrainingAttentionOn : public TrainingLevel {
 protected:
  template <class T>
  void compare(const Shape& s) {  // one key: the gradients of q and k are 0
    Problem<T> p(s);
    Problem<double> want(p);
    p.forward(table.of<T>());
    want.forward(reference.f64);
    EXPECT_LE(error_of(p.out, want.out), tolerance<T>) << s;
    EXPECT_LE(error_of(p.lse, want.lse), tolerance<T> / 4) << s;
    p.backward(table.of<T>());
    want.backward(reference.f64);
    EXPECT_LE(error_of(p.dq, want.dq, 0.5), 2 * tolerance<T>) << s << ": dq";
    EXPECT_LE(error_of(p.dk, want.dk, 0.5), 2 * tolerance<T>) << s << ": dk";
    EXPECT_LE(error_of(p.dv, want.dv), 2 * tolerance<T>) << s << ": dv";
    const auto blocks = p.block_scores(table.of<T>());
    const auto exact = want.block_scores(reference.f64);
    for (size_t i = 0; i < blocks.size(); ++i)
      ASSERT_TRUE(double(blocks[i]) == exact[i] || std::abs(double(blocks[i]) - exact[i]) < 1e-4)
          << s << ": block score " << i << ": " << blocks[i] << ", " << exact[i];
  }
  void compare_all(const Shape& s) {
    compare<float>(s);
    compare<uint16_t>(s);
  }
};
INSTANTIATE_TEST_SUITE_P(Levels, TrainingAttentionOn, testing::ValuesIn(levels()), [](const auto& info) { return level_name(info); });

TEST_P(TrainingAttentionOn, Lengths) {
  for (const int64_t n : {0, 1, 7, 15, 16, 17, 31, 63, 64, 65, 127, 129, 200})
    compare_all({.queries = n, .keys = n, .dim = 16, .value_dim = 16});
}

TEST_P(TrainingAttentionOn, Dims) {
  for (const int64_t d : {1, 2, 7, 15, 16, 17, 31, 48, 64, 80, 96, 127, 128, 129, 192})
    compare_all({.queries = 66, .keys = 66, .dim = d, .value_dim = d > 64 ? d - 64 : d});
}

TEST_P(TrainingAttentionOn, HeadsMemoryAndMasks) {
  for (const Shape& s : small) compare_all(s);
  compare_all({.batches = 2, .queries = 65, .keys = 130, .heads = 6, .kv_heads = 2, .dim = 24, .value_dim = 32, .query_offset = 65});
  compare_all({.queries = 70, .keys = 150, .dim = 16, .value_dim = 16, .query_offset = 150});
  for (const int64_t window : {1, 5, 64, 65, 100})
    for (const int64_t sinks : {0, 4, 70})
      compare_all({.queries = 200, .keys = 330, .dim = 16, .value_dim = 16, .query_offset = 130, .window = window, .sinks = sinks});
  for (const int64_t heads : {1, 2})
    for (const int64_t rows : {1, 3, 64})
      compare_all({.batches = 2,
                   .queries = 200,
                   .keys = 264,
                   .heads = 4,
                   .kv_heads = 2,
                   .dim = 16,
                   .value_dim = 16,
                   .query_offset = 64,
                   .selected_heads = heads,
                   .selected_rows = rows});
  compare_all(
      {.queries = 300, .keys = 300, .dim = 16, .value_dim = 16, .window = 90, .sinks = 3, .selected_heads = 1, .selected_rows = 64});
}

TEST_P(TrainingAttentionOn, LargeScoresDoNotOverflow) {
  Problem<float> p({.queries = 80, .keys = 80, .dim = 32, .value_dim = 16});
  for (float& v : p.q) v *= 60;
  for (float& v : p.k) v *= 60;
  Problem<double> want(p);
  p.forward(table.f32), want.forward(reference.f64);
  EXPECT_LE(error_of(p.out, want.out), 2e-3);  // scores of thousands have a last place of 1e-4
  p.backward(table.f32);
  for (const float v : p.dq) ASSERT_TRUE(std::isfinite(v));
}

TEST_P(TrainingAttentionOn, StridedRowsAndNothingBeside) {  // q, k, v as columns of one matrix, other columns untouched
  const int64_t times = 67, dim = 16, width = 3 * dim + 5;
  std::vector<float> together = random_numbers<float>(times * width, 1), grad(together.size(), 77), out(size_t(times * dim)),
                     lse(static_cast<size_t>(times));
  const auto column = [&](auto* data, int64_t first) { return Heads<std::remove_pointer_t<decltype(data)>>{data + first, 0, width, 0}; };
  AttentionArgs<float> a{.q = column(static_cast<const float*>(together.data()), 1),
                         .k = column(static_cast<const float*>(together.data()), 1 + dim),
                         .v = column(static_cast<const float*>(together.data()), 2 + 2 * dim),
                         .out = dense<float>(out.data(), times, 1, dim),
                         .lse = lse.data(),
                         .batches = 1,
                         .queries = times,
                         .keys = times,
                         .heads = 1,
                         .kv_heads = 1,
                         .dim = dim,
                         .value_dim = dim,
                         .query_offset = 0,
                         .scale = 0.25f};
  Scratch scratch;
  table.f32.attention(a, 0, scratch.of(table.f32.attention_scratch(a)));
  const AttentionGradArgs<float> g{.forward = a,
                                   .dout = dense<const float>(out.data(), times, 1, dim),
                                   .dq = column(grad.data(), 1),
                                   .dk = column(grad.data(), 1 + dim),
                                   .dv = column(grad.data(), 2 + 2 * dim)};
  table.f32.attention_backward(g, 0, scratch.of(table.f32.attention_backward_scratch(a)));
  Problem<double> want({.queries = times, .keys = times, .heads = 1, .dim = dim, .value_dim = dim});
  const auto take = [&](const std::vector<float>& from, int64_t first) {
    std::vector<double> to;
    for (int64_t t = 0; t < times; ++t)
      for (int64_t d = 0; d < dim; ++d) to.push_back(double(from[size_t(t * width + first + d)]));
    return to;
  };
  want.q = take(together, 1), want.k = take(together, 1 + dim), want.v = take(together, 2 + 2 * dim);
  want.forward(reference.f64);
  EXPECT_LE(error_of(out, want.out), tolerance<float>);
  want.dout = converted<double>(out);
  want.backward(reference.f64);
  EXPECT_LE(error_of(take(grad, 1), want.dq), 2 * tolerance<float>);
  EXPECT_LE(error_of(take(grad, 1 + dim), want.dk), 2 * tolerance<float>);
  EXPECT_LE(error_of(take(grad, 2 + 2 * dim), want.dv), 2 * tolerance<float>);
  for (int64_t t = 0; t < times; ++t)
    for (const int64_t beside : {int64_t(0), 1 + 2 * dim, 2 + 3 * dim, width - 1}) ASSERT_EQ(grad[size_t(t * width + beside)], 77);
}

}  // namespace
}  // namespace hadal
