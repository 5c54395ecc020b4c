// What the kernel tests share: every level that this machine can run, and numbers that repeat.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "kernels/kernels.h"

namespace hadal {

inline const std::vector<int64_t> sizes = {0, 1, 7, 8, 15, 16, 17, 31, 33, 127, 512};

inline std::vector<Isa> levels() {
  std::vector<Isa> all;
  for (const Isa isa : isa_levels)
    if (isa <= best_isa()) all.push_back(isa);
  return all;
}

class EveryLevel : public testing::TestWithParam<Isa> {
 protected:
  const Kernels k = kernels_for(GetParam()), reference = kernels_for(Isa::scalar);
};
inline std::string level_name(const testing::TestParamInfo<Isa>& info) { return kernels_for(info.param).name; }

inline std::vector<float> random_floats(int64_t n, unsigned seed, float spread = 1) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = normal(engine);
  return values;
}

inline bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

// Values stored as `type`, one element off any alignment, in a buffer that ends with the last value (a sanitizer sees a read past it).
struct Stored {
  std::vector<std::byte> bytes;
  const void* data = nullptr;
  std::vector<float> values;  // what the stored bytes mean

  Stored(const std::vector<float>& from, DType type) {
    const size_t each = size_t(info_of(type).block_bytes);
    bytes.resize((from.size() + 1) * each);
    data = bytes.data() + each;
    for (size_t i = 0; i < from.size(); ++i) {
      std::byte* at = bytes.data() + (i + 1) * each;
      const uint16_t half = type == DType::bf16 ? f32_to_bf16(from[i]) : f32_to_f16(from[i]);
      if (type == DType::f32) {
        std::memcpy(at, &from[i], 4);
        values.push_back(from[i]);
      } else {
        std::memcpy(at, &half, 2);
        values.push_back(type == DType::bf16 ? bf16_to_f32(half) : f16_to_f32(half));
      }
    }
  }
};

}  // namespace hadal
