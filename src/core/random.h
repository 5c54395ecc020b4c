// Numbers that look random and depend on nothing but what they are made from.
#pragma once
#include <cstdint>

namespace hadal {

// The finaliser of splitmix64 (Steele, Lea, Flood 2014): every bit of the input reaches every bit of the output.
constexpr uint64_t mix_bits(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace hadal
