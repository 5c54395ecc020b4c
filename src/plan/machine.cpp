// What this machine offers, read from the system and measured with kernels made for it.
#include "plan/machine.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <utility>

#include "core/error.h"
#include "core/memory.h"
#include "core/pool.h"
#include "kernels/kernels.h"

namespace hadal {
namespace {

// Of the shortest of the passes that fit into a third of a second. Passes are short, so that one of them falls between the interruptions of
// a busy machine.
template <class F>
double best_seconds(F pass) {
  using Clock = std::chrono::steady_clock;
  double best = 1e30, spent = 0;
  while (spent < 0.3) {
    const auto start = Clock::now();
    pass();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, seconds);
    spent += seconds;
  }
  return best;
}

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (!line.starts_with("model name")) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

std::string huge_page_setting() {  // the chosen word stands in brackets
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  for (std::string word; file >> word;)
    if (word.size() > 2 && word.front() == '[' && word.back() == ']') return word.substr(1, word.size() - 2);
  return "unknown";
}

// A pass reads 16 MB that were last read 500 MB ago: no cache holds them any more.
void measure_reading(Machine& m) {
  constexpr size_t wanted = 512 << 20, least = 64 << 20, part = 1 << 20;
  constexpr int64_t together = 16;
  const size_t bytes = std::max(least, std::min(wanted, available_memory() / 4) / least * least);
  const Buffer buffer(bytes, "measuring the read bandwidth");
  const int64_t parts = int64_t(bytes / part);
  const auto read_part = [&](int64_t i) { (void)kernels().read_bytes(buffer.data() + size_t(i % parts) * part, int64_t(part)); };
  // Untouched memory is one shared page of zeros, which the caches would answer for.
  pool().run(parts, [&](int64_t i) { std::memset(buffer.data() + size_t(i) * part, 1, part); });
  int64_t first = 0;
  m.read_one = double(together * part) / best_seconds([&] {
                 for (int64_t i = 0; i < together; ++i) read_part(first + i);
                 first += together;
               });
  m.read_all = double(together * part) / best_seconds([&] {
                 pool().run(together, [&](int64_t i) { read_part(first + i); });
                 first += together;
               });
}

// Operations per second of a kernel that does nothing else.
double peak_of(int64_t (*kernel)(int64_t rounds), int threads) {
  constexpr int pieces = 20;
  const int64_t rounds = int64_t(1e6 / double(kernel(1)));  // a piece of a million operations, some microseconds
  const double work = double(kernel(rounds)) * pieces * threads;
  const auto piece = [&](int64_t) { (void)kernel(rounds); };
  return work / best_seconds([&] {
           if (threads > 1) return pool().run(int64_t(pieces) * threads, piece);
           for (int i = 0; i < pieces; ++i) piece(i);
         });
}

}  // namespace

Machine probe_machine(bool measure) {
  Machine m{.cpu = cpu_name(),
            .cores = int(usable_cores().size()),
            .threads = pool().threads(),
            .isa = kernels().name,
            .memory = physical_memory(),
            .available = available_memory(),
            .huge_pages = huge_page_setting()};
  for (const Isa isa : isa_levels) {
    const bool usable = isa <= best_isa();
    const Kernels k = kernels_for(isa);  // filling the table runs none of its instructions
    IsaLevel level{.name = k.name, .usable = usable, .used = m.isa == k.name};
    if (measure && usable) level.flops_one = peak_of(k.fma_peak, 1), level.ops_one = peak_of(k.integer_peak, 1);
    if (level.used) m.flops_one = level.flops_one, m.ops_one = level.ops_one;
    m.levels.push_back(std::move(level));
  }
  if (!measure) return m;
  m.flops_all = m.threads > 1 ? peak_of(kernels().fma_peak, m.threads) : m.flops_one;
  m.ops_all = m.threads > 1 ? peak_of(kernels().integer_peak, m.threads) : m.ops_one;
  measure_reading(m);
  return m;
}

void keep_best(Machine& machine, const Machine& again) {
  for (double Machine::*figure :
       {&Machine::read_one, &Machine::read_all, &Machine::flops_one, &Machine::flops_all, &Machine::ops_one, &Machine::ops_all})
    machine.*figure = std::max(machine.*figure, again.*figure);
}

void check_isa_wish() {
  if (const char* name = unknown_isa()) throw Error("HADAL_ISA: expected scalar, avx2, avx512, vnni or amx, found \"{}\"", name);
}

}  // namespace hadal
