// The kernels of training beside what the machine can do at best: attention and the products of experts against the peak of their
// multiply-add in registers, row kernels against the read bandwidth. Each figure is the best of many passes, and so are the limits.
//   bench_training [FILTER]; only lines whose name contains FILTER. HADAL_ISA chooses the level.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/error.h"
#include "core/pool.h"
#include "core/random.h"
#include "kernels/training.h"
#include "plan/machine.h"

namespace hadal {
namespace {

double best_seconds(const auto& f) {
  using Clock = std::chrono::steady_clock;
  double best = 1e30;
  const auto begin = Clock::now();
  for (int pass = 0; pass < 3 || std::chrono::duration<double>(Clock::now() - begin).count() < 1; ++pass) {
    const auto start = Clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

template <class T>
std::vector<T> numbers(int64_t n) {  // in [-1, 1)
  std::vector<T> values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) {
    const float v = float(mix_bits(i) >> 40) / float(1 << 23) - 1;
    if constexpr (sizeof(T) == 2)
      values[i] = f32_to_bf16(v);
    else
      values[i] = v;
  }
  return values;
}

void with_scratch(int64_t tasks, int64_t bytes, const auto& f) {  // f(task, scratch) on all threads
  pool().run(tasks, [&](int64_t task) {
    thread_local std::vector<std::byte> scratch;
    if (int64_t(scratch.size()) < bytes + 64) scratch.resize(size_t(bytes) + 64);
    f(task, reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64));
  });
}

struct Report {
  std::string filter;
  Machine machine;
  double peak = 0;  // of the type at hand, all threads

  bool wants(const std::string& name) const { return name.find(filter) != name.npos; }
  void line(const std::string& name, double seconds, double operations) const {
    fmt::print("{:<58}{:>10.3f} ms{:>9.1f} GFLOP/s{:>6.0f} %\n", name, seconds * 1e3, operations / seconds / 1e9,
               100 * operations / seconds / peak);
    std::fflush(stdout);
  }
  void bytes_line(const std::string& name, double seconds, double bytes) const {
    fmt::print("{:<58}{:>10.3f} ms{:>9.1f} GB/s   {:>6.0f} %\n", name, seconds * 1e3, bytes / seconds / 1e9,
               100 * bytes / seconds / machine.read_all);
    std::fflush(stdout);
  }
};

template <class T>
void attention(const Report& report, const TrainingKernels<T>& k, const char* type, int64_t batches, int64_t times, int64_t heads,
               int64_t kv_heads, int64_t dim, int64_t value_dim, int64_t window) {
  const std::string name = fmt::format("attention {} {} x {}, heads {}/{} of {}/{}{}", type, batches, times, heads, kv_heads, dim,
                                       value_dim, window > 0 ? fmt::format(", window {}", window) : "");
  if (!report.wants(name)) return;
  const int64_t rows = batches * times;
  const std::vector<T> q = numbers<T>(rows * heads * dim), key = numbers<T>(rows * kv_heads * dim),
                       v = numbers<T>(rows * kv_heads * value_dim), dout = numbers<T>(rows * heads * value_dim);
  std::vector<T> out(dout.size()), dq(q.size()), dk(key.size()), dv(v.size());
  std::vector<float> lse(size_t(rows * heads));
  const auto heads_of = [&](auto* data, int64_t count, int64_t width) {
    return Heads<std::remove_pointer_t<decltype(data)>>{data, times * count * width, count * width, width};
  };
  const AttentionArgs<T> a{.q = heads_of(q.data(), heads, dim),
                           .k = heads_of(key.data(), kv_heads, dim),
                           .v = heads_of(v.data(), kv_heads, value_dim),
                           .out = heads_of(out.data(), heads, value_dim),
                           .lse = lse.data(),
                           .batches = batches,
                           .queries = times,
                           .keys = times,
                           .heads = heads,
                           .kv_heads = kv_heads,
                           .dim = dim,
                           .value_dim = value_dim,
                           .query_offset = 0,
                           .scale = 0.125f,
                           .mask = {.window = window}};
  const AttentionGradArgs<T> g{.forward = a,
                               .dout = heads_of(dout.data(), heads, value_dim),
                               .dq = heads_of(dq.data(), heads, dim),
                               .dk = heads_of(dk.data(), kv_heads, dim),
                               .dv = heads_of(dv.data(), kv_heads, value_dim)};
  double seen = 0;  // pairs of a query and a key
  for (int64_t t = 0; t < times; ++t) seen += double(window > 0 ? std::min(window, t + 1) : t + 1) * double(batches * heads);
  const double forward = best_seconds(
      [&] { with_scratch(a.tasks(), k.attention_scratch(a), [&](int64_t task, void* scratch) { k.attention(a, task, scratch); }); });
  report.line(name + " forward", forward, seen * 2 * double(dim + value_dim));
  const double backward = best_seconds([&] {
    with_scratch(a.tasks(), k.attention_backward_scratch(a), [&](int64_t task, void* scratch) { k.attention_backward(g, task, scratch); });
  });
  report.line(name + " backward", backward, seen * 2 * double(3 * dim + 2 * value_dim));
  std::vector<float> best(size_t(batches * kv_heads * times * ((times + 63) / 64)));
  const double blocks = best_seconds([&] {
    with_scratch(a.tasks(), k.block_scores_scratch(a), [&](int64_t task, void* scratch) { k.block_scores(a, best.data(), task, scratch); });
  });
  report.line(name + " block scores", blocks, seen * 2 * double(dim));
}

// The gate projection of experts: [pairs, d] x [d, ff]; one group is the dense product of equal work.
template <class T>
void experts(const Report& report, const TrainingKernels<T>& k, const char* type, int64_t groups, int64_t pairs, int64_t d, int64_t ff) {
  const std::string name = fmt::format("experts {} {} x {} pairs, {} -> {}", type, groups, pairs, d, ff);
  if (!report.wants(name)) return;
  std::vector<int64_t> offset = {0};
  for (int64_t g = 0; g < groups; ++g) offset.push_back(pairs * (g + 1) / groups);
  const std::vector<T> x = numbers<T>(pairs * d), dy = numbers<T>(pairs * ff);
  const std::vector<float> w = numbers<float>(groups * d * ff);
  std::vector<T> y(dy.size()), dx(x.size()), right(size_t(groups * packed_elements<T>(ff, d))),
      back(size_t(groups * packed_elements<T>(d, ff)));
  std::vector<float> dw(w.size());
  const double packing = best_seconds([&] {
    pool().run(groups, [&](int64_t g) {
      k.pack({.out = right.data() + g * packed_elements<T>(ff, d), .w = w.data() + g * d * ff, .n = ff, .k = d, .k_step = 1, .n_step = d});
      k.pack({.out = back.data() + g * packed_elements<T>(d, ff), .w = w.data() + g * d * ff, .n = d, .k = ff, .k_step = d, .n_step = 1});
    });
  });
  report.bytes_line(name + " packing, both ways", packing, 2 * double(w.size()) * double(sizeof(float) + sizeof(T)));
  const double operations = 2 * double(pairs) * double(d) * double(ff);
  const auto product = [&](T* c, const T* a, const std::vector<T>& weights, int64_t n, int64_t inner) {
    const GroupedArgs<T> args{
        .c = c, .a = a, .w = weights.data(), .offset = offset.data(), .groups = groups, .n = n, .k = inner, .lda = inner, .ldc = n};
    return best_seconds(
        [&] { with_scratch(args.tasks(), k.grouped_scratch(args), [&](int64_t task, void* scratch) { k.grouped(args, task, scratch); }); });
  };
  report.line(name + " forward", product(y.data(), x.data(), right, ff, d), operations);
  report.line(name + " dx", product(dx.data(), dy.data(), back, d, ff), operations);
  const GroupedOuterArgs<T> outer{
      .c = dw.data(), .a = dy.data(), .b = x.data(), .offset = offset.data(), .groups = groups, .m = ff, .n = d, .lda = ff, .ldb = d};
  const double seconds = best_seconds([&] {
    with_scratch(outer.tasks(), k.grouped_outer_scratch(outer),
                 [&](int64_t task, void* scratch) { k.grouped_outer(outer, task, scratch); });
  });
  report.line(name + " dw", seconds, operations);
}

template <class T>
void rows(const Report& report, const TrainingKernels<T>& k, const char* type) {
  const int64_t count = 4096, n = 1024, vocab = 8192, logit_rows = 1024;
  const auto parts = [&](int64_t all, const auto& f) {  // f(first, last) on all threads
    pool().run(64, [&](int64_t i) { f(all * i / 64, all * (i + 1) / 64); });
  };
  const std::vector<T> x = numbers<T>(count * n), y = numbers<T>(count * n), z = numbers<T>(count * n);
  std::vector<T> out(x.size()), other(x.size());
  const std::vector<float> weight = numbers<float>(n), angles = numbers<float>(count * n);
  std::vector<float> rms(static_cast<size_t>(count)), dweight(size_t(64 * n)), loss(size_t(4 * logit_rows));
  const auto line = [&](const std::string& what, double tensors, const auto& f) {
    const std::string name = fmt::format("{} {} {} x {}", what, type, count, n);
    if (report.wants(name)) report.bytes_line(name, best_seconds([&] { parts(count, f); }), tensors * double(x.size() * sizeof(T)));
  };
  line("rms_norm", 2, [&](int64_t first, int64_t last) {
    k.rms_norm({.out = out.data(), .x = x.data(), .weight = weight.data(), .rms = rms.data(), .n = n, .ldx = n, .ldout = n, .eps = 1e-6f},
               first, last);
  });
  line("rms_norm backward", 3, [&](int64_t first, int64_t last) {
    k.rms_norm_backward({.dx = out.data(),
                         .x = x.data(),
                         .dout = y.data(),
                         .weight = weight.data(),
                         .rms = rms.data(),
                         .n = n,
                         .ldx = n,
                         .lddout = n,
                         .lddx = n},
                        first, last, dweight.data() + first * 64 / count * n);
  });
  line("swiglu", 3, [&](int64_t first, int64_t last) {
    k.swiglu({.out = out.data(), .gate = x.data(), .up = y.data(), .n = n, .ld = n, .ldout = n}, first, last);
  });
  line("swiglu backward", 5, [&](int64_t first, int64_t last) {
    k.swiglu_backward({.dgate = out.data(),
                       .dup = other.data(),
                       .gate = x.data(),
                       .up = y.data(),
                       .dout = z.data(),
                       .n = n,
                       .ld = n,
                       .lddout = n,
                       .ldgrad = n},
                      first, last);
  });
  for (const bool pairs : {false, true})
    line(pairs ? "rope pairs" : "rope halves", 2, [&](int64_t first, int64_t last) {
      k.rope({.out = out.data(),
              .x = x.data(),
              .cos = angles.data(),
              .sin = angles.data() + count * 32,
              .times = count,
              .heads = n / 64,
              .half = 32,
              .x_row = n,
              .x_head = 64,
              .out_row = n,
              .out_head = 64,
              .pairs = pairs,
              .back = false},
             first, last);
    });
  std::vector<T> logits = numbers<T>(logit_rows * vocab);
  const std::vector<T> teacher = numbers<T>(logit_rows * vocab);
  const std::vector<int64_t> target(size_t(logit_rows), 5);
  const auto losses = [&](const char* what, std::array<float, 4> share, double tensors) {
    const std::string name = fmt::format("{} {} {} x {}", what, type, logit_rows, vocab);
    if (!report.wants(name)) return;
    const TokenLossArgs<T> a{.logits = logits.data(),
                             .teacher = teacher.data(),
                             .target = target.data(),
                             .target_weight = nullptr,
                             .row_weight = nullptr,
                             .loss = loss.data(),
                             .vocab = vocab,
                             .targets = 1,
                             .ld = vocab,
                             .ld_teacher = vocab,
                             .share = {share[0], share[1], share[2], share[3]},
                             .beta = 0.5f,
                             .temperature = 1};
    const double seconds = best_seconds([&] { parts(logit_rows, [&](int64_t first, int64_t last) { k.token_loss(a, first, last); }); });
    report.bytes_line(name, seconds, tensors * double(logits.size() * sizeof(T)));
  };
  losses("cross-entropy", {1, 0, 0, 0}, 2);
  losses("forward KL", {0, 1, 0, 0}, 3);
  losses("JSD", {0, 0, 0, 1}, 3);
}

template <class T>
void run_type(Report& report, const TrainingKernels<T>& k, const char* type) {
  const int64_t rounds = 4'000'000;
  const double seconds = best_seconds([&] { pool().run(pool().threads(), [&](int64_t) { (void)k.product_peak(rounds); }); });
  report.peak = double(k.product_peak(1)) * double(rounds) * pool().threads() / seconds;
  fmt::print("{}: peak {:.0f} GFLOP/s\n", type, report.peak / 1e9);
  for (const int64_t window : {0, 512}) attention(report, k, type, 2, 4096, 4, 4, 64, 64, window);
  attention(report, k, type, 16, 256, 4, 4, 64, 64, 0);
  attention(report, k, type, 8, 512, 8, 2, 64, 64, 0);
  attention(report, k, type, 4, 1024, 8, 8, 96, 64, 0);
  attention(report, k, type, 4, 1024, 8, 8, 128, 128, 0);
  for (const int64_t groups : {64, 1}) experts(report, k, type, groups, 4096 * 6, 512, 256);
  for (const int64_t pairs : {64, 512, 2048}) experts(report, k, type, 64, pairs, 512, 256);
  experts(report, k, type, 1, 4096, 256, 1024);
  rows(report, k, type);
}

void run(const std::string& filter) {
  Report report{filter, probe_machine(true)};
  fmt::print("{}, {}, {} threads: reads {:.1f} GB/s\n", report.machine.cpu, report.machine.isa, pool().threads(),
             report.machine.read_all / 1e9);
  run_type(report, training_kernels().f32, "f32");
  run_type(report, training_kernels().bf16, "bf16");
}

}  // namespace
}  // namespace hadal

int main(int argc, char** argv) try {
  hadal::check_isa_wish();
  hadal::run(argc > 1 ? argv[1] : "");
} catch (const hadal::Error& e) {
  fmt::print(stderr, "bench_training: {}\n", e.what());
  return 1;
}
