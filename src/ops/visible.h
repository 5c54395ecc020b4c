// Which keys of a page a row may see.
#pragma once
#include <cstdint>

#include "ops/attend.h"

namespace hadal {

constexpr uint64_t first_bits(int64_t count) { return count <= 0 ? 0 : count >= 64 ? ~uint64_t(0) : (uint64_t(1) << count) - 1; }

// Bit i for row i of page `index`, as the mask shows it to the row at `position`; top_blocks is not counted.
constexpr uint64_t visible_keys(const Mask& mask, int64_t position, int64_t index) {
  const int64_t first = index * CacheRows::page_rows;
  uint64_t keys = first_bits(position + 1 - first);
  if (mask.window > 0) keys &= ~first_bits(position - mask.window + 1 - first) | first_bits(mask.sinks - first);
  return keys;
}

}  // namespace hadal
