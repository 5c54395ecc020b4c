// Attention alone: decode of one row behind a depth, and prompts, for the shapes of published models. Each figure is the best of many
// passes; caches are larger than what the processor's own caches hold, one layer after the other as in a model.
//   bench_attention [FILTER]; only lines whose name contains FILTER. HADAL_ISA chooses the level.
#include <fmt/format.h>

#include <chrono>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/memory.h"
#include "core/pool.h"
#include "core/random.h"
#include "kernels/kernels.h"
#include "ops/attend.h"
#include "plan/machine.h"

namespace hadal {
namespace {

struct Shape {
  const char* name;
  int64_t heads, kv_heads, dim, rotated = 0;  // rotated > 0: latents of `dim`, shared by the heads
  int64_t row_bytes(DType type) const {
    if (type != DType::i8) return kv_heads * (rotated > 0 ? dim + rotated : 2 * dim) * info_of(type).block_bytes;
    return kv_heads * (rotated > 0 ? part_bytes(dim) + part_bytes(rotated) : 2 * part_bytes(dim)) / CacheRows::page_rows;
  }
  double operations() const { return 2.0 * double(heads) * double(2 * dim + rotated); }  // of one row and one key
};

struct Layers {  // caches of the same length, one per layer
  std::vector<std::vector<CachePage>> pages;
  Buffer memory;
  Layers(const Shape& shape, DType type, int64_t length, int64_t bytes) {
    const int64_t count = (length + CacheRows::page_rows - 1) / CacheRows::page_rows, page = shape.row_bytes(type) * CacheRows::page_rows;
    pages.resize(size_t(std::max<int64_t>(1, bytes / (count * page))));
    memory = Buffer(size_t(int64_t(pages.size()) * count * page), "the cache");
    const int64_t words = int64_t(memory.size()) / 4;
    pool().run(64, [&](int64_t task) {  // as floats about 1, as f16 too; as int8 anything
      for (int64_t i = words * task / 64; i < words * (task + 1) / 64; ++i)
        memory.as<uint32_t>()[i] = 0x3c003c00 | uint32_t(mix_bits(uint64_t(i)) & 0x01ff01ff);
    });
    std::byte* next = memory.data();
    for (auto& layer : pages)
      for (int64_t i = 0; i < count; ++i, next += page) layer.push_back({i, next});
  }
};

struct Figure {
  double seconds, bytes, operations;  // of one layer
};

Figure measure(const Shape& s, DType type, int64_t rows, int64_t position, Mask mask) {
  const int64_t key_dim = s.dim + s.rotated, length = position + rows;
  const Layers layers(s, type, length, rows == 1 ? int64_t(256) << 20 : 1);
  const std::vector<float> q(size_t(rows * s.heads * key_dim), 0.01f);
  std::vector<float> out(size_t(rows * s.heads * s.dim));
  const bool latent = s.rotated > 0, integers = type == DType::i8;
  const int64_t part = part_bytes(s.dim);
  const auto run = [&](const std::vector<CachePage>& pages) {
    const AttendArgs args{.out = {out.data(), rows, s.heads * s.dim, s.heads * s.dim},
                          .q = {q.data(), rows, s.heads * key_dim, s.heads * key_dim},
                          .cache = {type, pages, s.kv_heads * (latent ? key_dim : 2 * s.dim)},
                          .position = position,
                          .heads = s.heads,
                          .kv_heads = s.kv_heads,
                          .key_dim = key_dim,
                          .value_dim = s.dim,
                          .key_offset = 0,
                          .key_step = integers ? 2 * part : s.dim,
                          .value_offset = latent     ? 0
                                          : integers ? part
                                                     : s.kv_heads * s.dim,
                          .value_step = integers ? 2 * part : s.dim,
                          .scale = 0.1f,
                          .mask = mask,
                          .rotated_dim = integers ? s.rotated : 0,
                          .rotated_offset = part};
    attend({&args, 1});
  };
  using Clock = std::chrono::steady_clock;
  double best = 1e30;
  const auto begin = Clock::now();
  for (int pass = 0; pass < 3 || std::chrono::duration<double>(Clock::now() - begin).count() < 0.5; ++pass) {
    const auto start = Clock::now();
    for (const auto& pages : layers.pages) run(pages);
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count() / double(layers.pages.size()));
  }
  double seen = 0;
  for (int64_t r = 0; r < rows; ++r)
    seen += double(mask.window > 0 ? std::min(position + r + 1, mask.window + mask.sinks) : position + r + 1);
  const double kept = mask.window > 0 ? double(std::min(length, rows + mask.window + mask.sinks)) : double(length);
  return {best, kept * double(s.row_bytes(type)), seen * s.operations()};
}

void run(const std::string& filter) {
  const Shape shapes[] = {{"coder-1.3b", 16, 16, 128}, {"8b", 32, 8, 128}, {"v2-lite", 16, 1, 512, 64}, {"v3", 128, 1, 512, 64}};
  const Machine machine = probe_machine(true);
  fmt::print("{}, {}, {} threads: reads {:.1f} GB/s, {:.0f} GFLOP/s in f32\n", machine.cpu, machine.isa, pool().threads(),
             machine.read_all / 1e9, machine.flops_all / 1e9);
  fmt::print("{:<44}{:>10}{:>9}{:>9}{:>11}\n", "", "us/layer", "GB/s", "of read", "GOP/s");
  const auto line = [&](const Shape& s, DType type, int64_t rows, int64_t position, Mask mask) {
    const std::string name = fmt::format("{} {} rows {} at {}{}", s.name, name_of(type), rows, position,
                                         mask.window > 0 ? fmt::format(" window {} sinks {}", mask.window, mask.sinks) : "");
    if (name.find(filter) == name.npos) return;
    const Figure f = measure(s, type, rows, position, mask);
    fmt::print("{:<44}{:>10.1f}{:>9.1f}{:>8.0f}%{:>11.0f}\n", name, f.seconds * 1e6, f.bytes / f.seconds / 1e9,
               100 * f.bytes / f.seconds / machine.read_all, f.operations / f.seconds / 1e9);
    std::fflush(stdout);
  };
  for (const Shape& s : shapes)
    for (const DType type : {DType::i8, DType::f16}) {
      for (const int64_t depth : {512, 4096, 8192, 16384}) line(s, type, 1, depth, {});
      line(s, type, 512, 0, {});
      if (s.rotated == 0) line(s, type, 2048, 0, {});
      for (const Mask mask : {Mask{}, Mask{512, 4}}) {
        line(s, type, 1, 10240, mask);
        line(s, type, 64, 10240, mask);
        if (s.rotated == 0) line(s, type, 10240, 0, mask);
      }
    }
}

}  // namespace
}  // namespace hadal

int main(int argc, char** argv) try {
  hadal::check_isa_wish();
  hadal::run(argc > 1 ? argv[1] : "");
} catch (const hadal::Error& e) {
  fmt::print(stderr, "bench_attention: {}\n", e.what());
  return 1;
}
