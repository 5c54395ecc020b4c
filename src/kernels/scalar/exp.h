// exp as every level computes it: 2^n e^r with |r| <= ln 2 / 2 and a polynomial of degree 7, operation by operation as in
// vector/rows.inc.h, fused where it fuses there. About 1 ulp.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

namespace hadal {

inline float exp_of(float x) {
  constexpr double ln2 = 0x1.62e42fefa39efp-1;
  constexpr float upper = 0x1.62e4p-1f, lower = float(ln2 - upper);
  x = x > -104.5f ? x : x < -104.5f ? -104.5f : x;
  x = x < 89.f ? x : x > 89.f ? 89.f : x;
  const float n = std::nearbyint(x * float(1 / ln2));
  const float r = std::fma(n, -lower, std::fma(n, -upper, x));
  constexpr float taylor[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  float sum = 1.0f / 5040;
  for (const float t : taylor) sum = std::fma(sum, r, t);
  const int whole = std::isnan(n) ? 0 : int(n), half = whole >> 1;
  const auto power = [](int e) { return std::bit_cast<float>(uint32_t(e + 127) << 23); };
  return sum * power(half) * power(whole - half);
}

}  // namespace hadal
