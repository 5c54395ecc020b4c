// Losses, norms, SwiGLU and rope of training: gradients are finite differences in double, and every level is held to the scalar kernels
// there.
#include <array>

#include "training.h"

namespace hadal {
namespace {

const std::vector<int64_t> row_sizes = {0, 1, 7, 15, 16, 17, 31, 127, 129, 600};

template <class T>
struct Losses {
  int64_t rows = 3, vocab, targets = 2;
  std::vector<T> logits, teacher;
  std::vector<int64_t> target;
  std::vector<Wide<T>> target_weight, row_weight, loss;
  Wide<T> share[4] = {}, beta = Wide<T>(0.3), temperature = Wide<T>(1.7);

  explicit Losses(int64_t vocab_) : vocab(vocab_) {
    logits = random_numbers<T>(rows * vocab, 1, 3), teacher = random_numbers<T>(rows * vocab, 2, 3);
    for (int64_t i = 0; i < rows * targets; ++i) target.push_back(i == 3 ? -100 : (i * 5 + 1) % vocab);
    target_weight = {Wide<T>(0.5), 2, 1, 1, Wide<T>(0.25), Wide<T>(0.75)};
    row_weight = {1, Wide<T>(0.125), 3};
    loss.resize(size_t(4 * rows));
  }
  template <class U>
  explicit Losses(const Losses<U>& o) : Losses(o.vocab) {
    logits = converted<T>(o.logits), teacher = converted<T>(o.teacher);
    for (int i = 0; i < 4; ++i) share[i] = Wide<T>(o.share[i]);
  }
  void run(const TrainingKernels<T>& kernels) {
    kernels.token_loss({.logits = logits.data(),
                        .teacher = teacher.data(),
                        .target = target.data(),
                        .target_weight = target_weight.data(),
                        .row_weight = row_weight.data(),
                        .loss = loss.data(),
                        .vocab = vocab,
                        .targets = targets,
                        .ld = vocab,
                        .ld_teacher = vocab,
                        .share = {share[0], share[1], share[2], share[3]},
                        .beta = beta,
                        .temperature = temperature},
                       0, rows);
  }
};

const std::vector<std::array<double, 4>> shares = {{1, 0, 0, 0}, {0, 1, 0, 0},     {0, 0, 1, 0},
                                                   {0, 0, 0, 1}, {0.3, 0.7, 0, 0}, {0.1, 0.2, 0.3, 0.4}};

template <class T>
void set_shares(Losses<T>& l, const std::array<double, 4>& s) {
  for (size_t i = 0; i < 4; ++i) l.share[i] = Wide<T>(s[i]);
}

TEST(TrainingLoss, IsWhatTheFormulasSay) {
  for (const int64_t vocab : {1, 2, 9}) {
    Losses<double> l(vocab);
    set_shares(l, {1, 1, 1, 1});
    const std::vector<double> x = l.logits;
    l.run(training_kernels_for(Isa::scalar).f64);
    for (int64_t row = 0; row < l.rows; ++row) {
      const auto softmax = [&](const std::vector<double>& from, double temperature) {
        std::vector<double> p;
        double sum = 0;
        for (int64_t i = 0; i < vocab; ++i) p.push_back(std::exp(from[size_t(row * vocab + i)] / temperature)), sum += p.back();
        for (double& v : p) v /= sum;
        return p;
      };
      const auto plain = softmax(x, 1), q = softmax(x, l.temperature), p = softmax(l.teacher, l.temperature);
      double want[4] = {};
      for (int64_t j = 0; j < l.targets; ++j) {
        const int64_t target = l.target[size_t(row * l.targets + j)];
        if (target >= 0) want[0] -= l.target_weight[size_t(row * l.targets + j)] * std::log(plain[size_t(target)]);
      }
      for (size_t i = 0; i < size_t(vocab); ++i) {
        const double m = l.beta * p[i] + (1 - l.beta) * q[i];
        want[1] += p[i] * std::log(p[i] / q[i]);
        want[2] += q[i] * std::log(q[i] / p[i]);
        want[3] += l.beta * p[i] * std::log(p[i] / m) + (1 - l.beta) * q[i] * std::log(q[i] / m);
      }
      for (int i = 0; i < 4; ++i)
        EXPECT_NEAR(l.loss[size_t(4 * row + i)], want[i], 1e-12) << "loss " << i << " of row " << row << ", vocab " << vocab;
    }
  }
}

TEST(TrainingLoss, GradientsAreFiniteDifferences) {
  const TrainingKernels<double> kernels = training_kernels_for(Isa::scalar).f64;
  for (const auto& s : shares) {
    Losses<double> l(11);
    set_shares(l, s);
    const std::vector<double> x = l.logits;
    const auto total = [&](const std::vector<double>& logits) {
      l.logits = logits;
      l.run(kernels);
      double sum = 0;
      for (int64_t row = 0; row < l.rows; ++row)
        for (int i = 0; i < 4; ++i) sum += l.row_weight[size_t(row)] * l.share[i] * l.loss[size_t(4 * row + i)];
      return sum;
    };
    total(x);
    const std::vector<double> gradient = l.logits;
    for (size_t i = 0; i < x.size(); ++i) {
      std::vector<double> above = x, below = x;
      above[i] += 1e-5, below[i] -= 1e-5;
      ASSERT_NEAR(gradient[i], (total(above) - total(below)) / 2e-5, 1e-8)
          << i << " with shares " << s[0] << " " << s[1] << " " << s[2] << " " << s[3];
    }
  }
}

class TrainingRows : public TrainingLevel {
 protected:
  template <class T>
  void losses(int64_t vocab, const std::array<double, 4>& s) {
    Losses<T> l(vocab);
    set_shares(l, s);
    Losses<double> want(l);
    want.beta = double(l.beta), want.temperature = double(l.temperature);
    l.run(table.of<T>()), want.run(reference.f64);
    EXPECT_LE(error_of(l.loss, want.loss, 0.1), 4e-6) << vocab;
    EXPECT_LE(error_of(l.logits, want.logits, 0.1), tolerance<T>) << vocab;
  }
  template <class T>
  void norm(int64_t n) {
    const int64_t rows = 3;
    const auto x = random_numbers<T>(rows * n, 1, 2), dout = random_numbers<T>(rows * n, 2);
    const auto weight = random_numbers<Wide<T>>(n, 3);
    const auto run = [&]<class U>(const TrainingKernels<U>& kernels, std::vector<U>& out, std::vector<U>& dx,
                                  std::vector<Wide<U>>& dweight) {
      const auto in = converted<U>(x), grad = converted<U>(dout);
      const auto w = converted<Wide<U>>(weight);
      std::vector<Wide<U>> rms(size_t(rows), 7);
      out.assign(size_t(rows * n), U(7)), dx = out;
      dweight.assign(size_t(n), 0.5);  // what is there stays
      kernels.rms_norm(
          {.out = out.data(), .x = in.data(), .weight = w.data(), .rms = rms.data(), .n = n, .ldx = n, .ldout = n, .eps = Wide<U>(0.25)}, 0,
          rows);
      kernels.rms_norm_backward({.dx = dx.data(),
                                 .x = in.data(),
                                 .dout = grad.data(),
                                 .weight = w.data(),
                                 .rms = rms.data(),
                                 .n = n,
                                 .ldx = n,
                                 .lddout = n,
                                 .lddx = n},
                                0, rows, dweight.data());
    };
    std::vector<T> out, dx;
    std::vector<Wide<T>> dweight;
    std::vector<double> want, want_dx, want_dweight;
    run(table.of<T>(), out, dx, dweight);
    run(reference.f64, want, want_dx, want_dweight);
    EXPECT_LE(error_of(out, want), tolerance<T>) << n;
    EXPECT_LE(error_of(dx, want_dx), tolerance<T>) << n;
    EXPECT_LE(error_of(dweight, want_dweight), 4e-6) << n;
  }
  template <class T>
  void gated(int64_t n) {
    const int64_t rows = 2, ld = n + 3;
    const auto gate = random_numbers<T>(rows * ld, 1, 4), up = random_numbers<T>(rows * ld, 2), dout = random_numbers<T>(rows * n, 3);
    const auto run = [&]<class U>(const TrainingKernels<U>& kernels) {
      const auto g = converted<U>(gate), u = converted<U>(up), d = converted<U>(dout);
      std::vector<U> all(size_t(3 * rows * n), U(7));
      U *out = all.data(), *dgate = out + rows * n, *dup = dgate + rows * n;
      kernels.swiglu({.out = out, .gate = g.data(), .up = u.data(), .n = n, .ld = ld, .ldout = n}, 0, rows);
      kernels.swiglu_backward(
          {.dgate = dgate, .dup = dup, .gate = g.data(), .up = u.data(), .dout = d.data(), .n = n, .ld = ld, .lddout = n, .ldgrad = n}, 0,
          rows);
      return all;
    };
    EXPECT_LE(error_of(run(table.of<T>()), run(reference.f64)), tolerance<T>) << n;
  }
  template <class T>
  void choices(int64_t n, bool weighed) {
    const int64_t rows = 5, active = 3, all = rows * active;
    const auto in = random_numbers<T>(rows * n, 1), sorted = random_numbers<T>(all * n, 2), other = random_numbers<T>(all * n, 3);
    std::vector<int64_t> place;
    for (int64_t i = 0; i < all; ++i) place.push_back(i * 7 % all);
    const auto run = [&]<class U>(const TrainingKernels<U>& kernels) {
      auto from = converted<U>(in), taken = converted<U>(sorted), spread = taken, scaled = taken;
      const auto x = converted<U>(other);
      std::vector<U> sums(from.size());
      std::vector<Wide<U>> weight, dot(size_t(all), 7);
      for (int64_t i = 0; i < all; ++i) weight.push_back(Wide<U>(i) / 4 - 1);
      const auto args = [&](std::vector<U>& a, std::vector<U>& b) {
        return ChoicesArgs<U>{.rows = a.data(),
                              .sorted = b.data(),
                              .place = place.data(),
                              .weight = weighed ? weight.data() : nullptr,
                              .active = active,
                              .n = n};
      };
      kernels.gather_choices(args(sums, taken), 0, rows);
      kernels.spread_choices(args(from, spread), 0, 2);
      kernels.spread_choices(args(from, spread), 2, rows);
      kernels.weigh_choices(args(from, scaled), x.data(), dot.data(), 0, rows);
      std::vector<double> found;
      for (const auto* values : {&sums, &spread, &scaled})
        for (const U v : *values) found.push_back(value_of(v));
      found.insert(found.end(), dot.begin(), dot.end());
      return found;
    };
    const std::vector<double> want = run(reference.f64);
    EXPECT_LE(error_of(run(table.of<T>()), want), tolerance<T>) << n;
    // The specification itself, on one number of each.
    if (n < 2) return;
    const auto w = [&](int64_t i) { return weighed ? double(i) / 4 - 1 : 1; };
    const auto at = [&](const std::vector<T>& v, int64_t i, int64_t d) { return value_of(v[size_t(i * n + d)]); };
    double sum = 0, dot = 0;
    for (int64_t i = 6; i < 9; ++i) sum += w(i) * at(sorted, place[size_t(i)], 1);
    for (int64_t d = 0; d < n; ++d) dot += at(other, place[4], d) * at(sorted, place[4], d);
    const auto found = [&](int64_t i) { return want[size_t(i)]; };
    EXPECT_NEAR(found(2 * n + 1), sum, 1e-12);
    EXPECT_NEAR(found(rows * n + place[7] * n + 1), w(7) * at(in, 2, 1), 1e-12);
    EXPECT_NEAR(found((rows + all) * n + place[7] * n + 1), w(7) * at(sorted, place[7], 1), 1e-12);
    EXPECT_NEAR(found((rows + 2 * all) * n + 4), dot, 1e-12);
  }
  template <class T>
  void turned(int64_t half, bool pairs, bool back) {
    const int64_t times = 3, rows = 2 * times, heads = 2, width = 2 * half + 1;
    const auto x = random_numbers<T>(rows * heads * width, 1), angle = random_numbers<T>(2 * times * half, 2);
    const auto run = [&]<class U>(const TrainingKernels<U>& kernels) {
      const auto in = converted<U>(x);
      const auto angles = converted<Wide<U>>(angle);
      std::vector<U> out(in.size(), U(7));
      kernels.rope({.out = out.data(),
                    .x = in.data(),
                    .cos = angles.data(),
                    .sin = angles.data() + times * half,
                    .times = times,
                    .heads = heads,
                    .half = half,
                    .x_row = heads * width,
                    .x_head = width,
                    .out_row = heads * width,
                    .out_head = width,
                    .pairs = pairs,
                    .back = back},
                   0, rows);
      for (int64_t i = 0; i < rows * heads; ++i) {
        EXPECT_EQ(out[size_t(i * width + 2 * half)], U(7));
        out[size_t(i * width + 2 * half)] = U(0);
      }
      return out;
    };
    EXPECT_LE(error_of(run(table.of<T>()), run(reference.f64)), tolerance<T>) << half << (pairs ? " pairs" : " halves");
  }
};
INSTANTIATE_TEST_SUITE_P(Levels, TrainingRows, testing::ValuesIn(levels()), [](const auto& info) { return level_name(info); });

TEST_P(TrainingRows, Losses) {
  for (const int64_t vocab : row_sizes)
    for (const auto& s : shares) {
      if (vocab == 0) continue;
      losses<float>(vocab, s);
      losses<uint16_t>(vocab, s);
    }
}
TEST_P(TrainingRows, RmsNorm) {
  for (const int64_t n : row_sizes) norm<float>(n), norm<uint16_t>(n);
}
TEST_P(TrainingRows, Swiglu) {
  for (const int64_t n : row_sizes) gated<float>(n), gated<uint16_t>(n);
}
TEST_P(TrainingRows, Choices) {
  for (const int64_t n : row_sizes)
    for (const bool weighed : {false, true}) choices<float>(n, weighed), choices<uint16_t>(n, weighed);
}
TEST_P(TrainingRows, Rope) {
  for (const int64_t half : {0, 1, 4, 7, 8, 15, 16, 17, 32, 64})
    for (const bool pairs : {false, true})
      for (const bool back : {false, true}) turned<float>(half, pairs, back), turned<uint16_t>(half, pairs, back);
}

TEST(TrainingRowsInDouble, GradientsAreFiniteDifferences) {
  const TrainingKernels<double> kernels = training_kernels_for(Isa::scalar).f64;
  const int64_t n = 6;
  const std::vector<double> x = random_numbers<double>(n, 1), y = random_numbers<double>(n, 2), dout = random_numbers<double>(n, 3);
  const auto differences = [&](std::vector<double> at, auto&& f) {  // of the product of dout and f(at)
    std::vector<double> d;
    for (double& v : at) {
      const double kept = v;
      double side[2];
      for (int i = 0; i < 2; ++i) {
        v = kept + (i == 0 ? 1e-6 : -1e-6);
        const std::vector<double> out = f(at);
        side[i] = 0;
        for (size_t j = 0; j < out.size(); ++j) side[i] += out[j] * dout[j];
      }
      v = kept;
      d.push_back((side[0] - side[1]) / 2e-6);
    }
    return d;
  };
  std::vector<double> dx(x.size()), dy(x.size(), 0.0);
  double rms;
  const auto norm = [&](const std::vector<double>& in, const std::vector<double>& weight) {
    std::vector<double> out(in.size());
    kernels.rms_norm({.out = out.data(), .x = in.data(), .weight = weight.data(), .rms = &rms, .n = n, .ldx = n, .ldout = n, .eps = 1e-5},
                     0, 1);
    return out;
  };
  norm(x, y);
  kernels.rms_norm_backward(
      {.dx = dx.data(), .x = x.data(), .dout = dout.data(), .weight = y.data(), .rms = &rms, .n = n, .ldx = n, .lddout = n, .lddx = n}, 0,
      1, dy.data());
  EXPECT_LE(error_of(dx, differences(x, [&](const auto& at) { return norm(at, y); })), 1e-8);
  EXPECT_LE(error_of(dy, differences(y, [&](const auto& at) { return norm(x, at); })), 1e-8);

  const auto gated = [&](const std::vector<double>& gate, const std::vector<double>& up) {
    std::vector<double> out(gate.size());
    kernels.swiglu({.out = out.data(), .gate = gate.data(), .up = up.data(), .n = n, .ld = n, .ldout = n}, 0, 1);
    return out;
  };
  kernels.swiglu_backward({.dgate = dx.data(),
                           .dup = dy.data(),
                           .gate = x.data(),
                           .up = y.data(),
                           .dout = dout.data(),
                           .n = n,
                           .ld = n,
                           .lddout = n,
                           .ldgrad = n},
                          0, 1);
  EXPECT_LE(error_of(dx, differences(x, [&](const auto& at) { return gated(at, y); })), 1e-8);
  EXPECT_LE(error_of(dy, differences(y, [&](const auto& at) { return gated(x, at); })), 1e-8);

  for (const bool pairs : {false, true}) {
    const auto turned = [&](const std::vector<double>& in, bool back) {
      std::vector<double> out(in.size());
      kernels.rope({.out = out.data(),
                    .x = in.data(),
                    .cos = y.data(),
                    .sin = y.data() + 3,
                    .times = 1,
                    .heads = 1,
                    .half = 3,
                    .x_row = n,
                    .x_head = n,
                    .out_row = n,
                    .out_head = n,
                    .pairs = pairs,
                    .back = back},
                   0, 1);
      return out;
    };
    EXPECT_LE(error_of(turned(dout, true), differences(x, [&](const auto& at) { return turned(at, false); })), 1e-8);
  }
}

}  // namespace
}  // namespace hadal
