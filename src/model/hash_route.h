// The router that looks at nothing but the token (Roller et al., "Hash Layers", arXiv 2106.04426).
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/random.h"

namespace hadal {

// `active` different experts out of `experts`, ascending: a sample by Floyd's algorithm, drawn from the token and the layer.
inline std::vector<int32_t> hash_experts(int32_t token, int64_t layer, int64_t experts, int64_t active) {
  std::vector<int32_t> chosen;
  uint64_t state = mix_bits(uint64_t(layer) << 32 | uint32_t(token));
  for (int64_t last = experts - active; last < experts; ++last) {
    state = mix_bits(state);
    const auto drawn = int32_t(state % uint64_t(last + 1));
    chosen.push_back(std::ranges::find(chosen, drawn) == chosen.end() ? drawn : int32_t(last));
  }
  std::ranges::sort(chosen);
  return chosen;
}

}  // namespace hadal
