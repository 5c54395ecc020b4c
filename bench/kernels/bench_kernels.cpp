// Matrix products beside what the machine can do at best: decode (one row) against the read bandwidth, prefill (many rows) against the
// peak of multiply-add, or of integer products where the weights are packed. Each figure is the best of a second of passes over weights
// that no cache holds, and so are the limits, measured in turns with it: memory is shared with whatever else runs.
//   bench_kernels [--benchmark_filter=REGEX]; HADAL_ISA chooses the level.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/memory.h"
#include "core/pool.h"
#include "kernels/kernels.h"
#include "ops/ops.h"
#include "plan/machine.h"

namespace hadal {
namespace {

double seconds_of(const auto& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// 768 MB of weights as a row of matrices [n, k], multiplied one after the other as a model's layers are.
class Weights {
 public:
  Weights(DType type, int64_t n, int64_t k)
      : one_{type, n, k},
        bytes_(is_packed(type) ? packed_bytes(type, n, k) : bytes_of(type, n * k)),
        buffer_(size_t(768) << 20, "weights") {
    for (size_t i = 0; i < buffer_.size() / 2; ++i) buffer_.as<uint16_t>()[i] = uint16_t(0x3c00 | (i * 40503 >> 7 & 0x3ff));
    scale_.assign(size_t(padded_rows(n)), 1e-3f), sum_.assign(size_t(padded_rows(n)), 0);  // other sums, other results, the same work
  }
  int64_t bytes() const { return bytes_; }
  int64_t count() const { return int64_t(buffer_.size()) / bytes_; }
  Weight operator[](int64_t i) const {
    Weight w = one_;
    w.data = buffer_.data() + i * bytes_, w.scale = scale_.data(), w.sum = sum_.data();
    return w;
  }

 private:
  Weight one_;
  int64_t bytes_;
  Buffer buffer_;
  std::vector<float> scale_;
  std::vector<int32_t> sum_;
};

void product(benchmark::State& state, DType type, int64_t m, int64_t n, int64_t k, int threads) {
  set_pool_threads(threads);
  const Weights weights(type, n, k);
  std::vector<float> x(size_t(m * k), 0.5f), y(size_t(m * n));
  const Mat<float> out{y.data(), m, n, n};
  CodeRoom room;
  const Weight any = weights[0];
  const Input in = input_for({{out, any}}, Mat<const float>{x.data(), m, k, k}, room);  // the producer's work, not timed here
  const auto peak_kernel = is_packed(type) ? kernels().integer_peak : kernels().fma_peak;
  const double flops = 2.0 * double(m) * double(n) * double(k), bytes = double(weights.bytes());
  // Products are timed in groups of about a millisecond, short enough to fall between the interruptions of a busy machine.
  const int64_t together = std::max<int64_t>(1, std::min(int64_t(16e6 / bytes), int64_t((is_packed(type) ? 8e8 : 2e8) / flops)));
  const int64_t read_part = int64_t(bytes) * together / (16 * threads), rounds = int64_t(2e7 / double(peak_kernel(1)));
  for (auto _ : state) {
    double product = 1e30, read = 1e30, peak = 1e30, spent = 0;  // seconds, the best of each
    const auto time = [&](double& best, const auto& f) {
      const double seconds = seconds_of(f);
      best = std::min(best, seconds);
      spent += seconds;
    };
    for (int64_t first = 0; spent < 1.5; first = first + 4 * together <= weights.count() ? first + 2 * together : 0) {
      time(product, [&] {
        for (int64_t i = first; i < first + together; ++i) matmul(out, in, weights[i]);
      });
      const std::byte* data = weights[first + together].data;
      time(read, [&] { pool().run(16 * threads, [&](int64_t i) { (void)kernels().read_bytes(data + i * read_part, read_part); }); });
      time(peak, [&] { pool().run(threads, [&](int64_t) { (void)peak_kernel(rounds); }); });
    }
    state.SetIterationTime(product / double(together));
    const double bytes_per_second = bytes * double(together) / product, flops_per_second = flops * double(together) / product;
    state.counters["GB/s"] = bytes_per_second / 1e9;
    state.counters["of_read"] = bytes_per_second * read / double(16 * threads * read_part);
    state.counters["Gop/s"] = flops_per_second / 1e9;
    state.counters["of_peak"] = flops_per_second * peak / double(peak_kernel(rounds) * threads);
  }
}

void add_benchmarks(int all) {
  const auto add = [&](DType type, int64_t m, int64_t n, int64_t k, int threads) {
    const std::string name = fmt::format("{}/m:{}/n:{}/k:{}/threads:{}", name_of(type), m, n, k, threads);
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& s) { product(s, type, m, n, k, threads); })
        ->Iterations(1)
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  };
  for (const int threads : all > 1 ? std::vector<int>{1, all} : std::vector<int>{1}) {
    for (const DType type : {DType::bf16, DType::f16, DType::f32}) add(type, 1, 2048, 2048, threads);
    add(DType::bf16, 1, 5504, 2048, threads);
    add(DType::bf16, 1, 2048, 5504, threads);
    add(DType::bf16, 1, 576, 576, threads);
    for (const int64_t m : {2, 4, 8, 16, 32, 64, 128, 512}) add(DType::bf16, m, 2048, 2048, threads);
    for (const int64_t m : {64, 512}) {
      add(DType::f32, m, 2048, 2048, threads);
      add(DType::f16, m, 2048, 2048, threads);
      add(DType::bf16, m, 2048, 11008, threads);
      add(DType::bf16, m, 1536, 576, threads);
    }
    for (const DType type : {DType::w8, DType::w4, DType::w3, DType::w2}) {
      for (const int64_t m : {1, 2, 4, 8, 16, 32, 64, 512}) add(type, m, 2048, 2048, threads);
      for (const int64_t m : {1, 512}) add(type, m, 5504, 2048, threads), add(type, m, 2048, 5504, threads);
    }
  }
}

}  // namespace
}  // namespace hadal

int main(int argc, char** argv) try {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  hadal::check_isa_wish();
  const hadal::Machine m = hadal::probe_machine(true);
  fmt::print(
      "{}, {}: read {:.1f} GB/s with one thread, {:.1f} with {}; multiply-add {:.1f} and {:.1f} GFLOP/s, integers {:.0f} "
      "and {:.0f} Gop/s\n",
      m.cpu, m.isa, m.read_one / 1e9, m.read_all / 1e9, m.threads, m.flops_one / 1e9, m.flops_all / 1e9, m.ops_one / 1e9, m.ops_all / 1e9);
  hadal::add_benchmarks(m.threads);
  benchmark::RunSpecifiedBenchmarks();
} catch (const hadal::Error& e) {
  fmt::print(stderr, "bench_kernels: {}\n", e.what());
  return 1;
}
