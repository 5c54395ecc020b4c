// Where the time of forward passes goes, by phase. A pass without a profile pays one comparison per phase.
#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <string_view>
#include <utility>

#include "core/pool.h"

namespace hadal {

enum class Phase { embed, norm, qkv, rope, append, attention, latent, out, router, experts, mlp, head, sampling };
constexpr int phases = int(Phase::sampling) + 1;

constexpr std::string_view name_of(Phase phase) {
  constexpr std::string_view names[] = {"embed",  "norm",   "q, k, v", "rope", "append", "attention", "latents",
                                        "output", "router", "experts", "mlp",  "head",   "sampling"};
  return names[int(phase)];
}

struct Profile {
  using Clock = std::chrono::steady_clock;
  std::array<double, phases> seconds{}, waiting{};  // waiting: of those, the thread that leads waited for the others
  int64_t experts = 0;                              // routed experts whose weights were read, over all layers
  Clock::time_point last = Clock::now();
  double waited = 0;
  void begin() {
    last = Clock::now();
    waited = pool().waited();
  }
  void lap(Phase phase) {  // what happened since the last lap was this phase
    const Clock::time_point now = Clock::now();
    seconds[size_t(phase)] += std::chrono::duration<double>(now - last).count();
    last = now;
    const double before = std::exchange(waited, pool().waited());
    waiting[size_t(phase)] += waited - before;
  }
};

}  // namespace hadal
