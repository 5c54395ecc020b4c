// The eight tile registers of AMX: 16 rows of 64 bytes each. Two versions of the same few functions: the instructions, and with
// HADAL_SOFTWARE_TILES a model of the registers in plain C++, so that the tests run the kernels on any machine with AVX-512 VNNI.
// The model stops the program where the processor would: a tile without a shape, tiles whose shapes do not fit.
// Source: Intel's Software Developer's Manual, volume 1, chapter 18 (AMX), and volume 2, TDPBUSD.
#pragma once
#include <cstdint>

namespace hadal {
namespace {

struct alignas(64) TileConfig {  // as LDTILECFG reads it
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

#ifndef HADAL_SOFTWARE_TILES

#define TILE_FUNCTION __attribute__((always_inline)) inline

// Own words instead of the compiler's intrinsics, whose operands in g++ 12 do not say what memory they read and write.
TILE_FUNCTION void tile_configure(const TileConfig& config) { asm volatile("ldtilecfg %0" : : "m"(config)); }
TILE_FUNCTION void tile_release() { asm volatile("tilerelease"); }
template <int t>
TILE_FUNCTION void tile_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(t));
}
template <int t>
TILE_FUNCTION void tile_load(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(t) : "memory");
}
template <int t>
TILE_FUNCTION void tile_store(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(t) : "memory");
}
template <int c, int a, int b>  // c[m][n] += sum over k and j < 4 of a[m][4 k + j] * b[k][4 n + j]; int32 += uint8 * int8
TILE_FUNCTION void tile_products() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
}

#else

#define TILE_FUNCTION inline

struct Tile {
  uint8_t rows = 0;
  uint16_t row_bytes = 0;
  uint8_t data[16][64] = {};
};
thread_local Tile tiles[8];

TILE_FUNCTION void tile_check(bool allowed) {
  if (!allowed) __builtin_trap();
}
TILE_FUNCTION void tile_configure(const TileConfig& config) {
  tile_check(config.palette == 1);
  for (int t = 0; t < 8; ++t) {
    tile_check(config.rows[t] <= 16 && config.row_bytes[t] <= 64);
    tiles[t] = {config.rows[t], config.row_bytes[t], {}};
  }
}
TILE_FUNCTION void tile_release() {
  for (Tile& t : tiles) t = {};
}
template <int t>
TILE_FUNCTION void tile_zero() {
  tile_check(tiles[t].rows > 0);
  tiles[t] = {tiles[t].rows, tiles[t].row_bytes, {}};
}
template <int t>
TILE_FUNCTION void tile_load(const void* from, int64_t stride) {
  tile_zero<t>();
  for (int64_t r = 0; r < tiles[t].rows; ++r)
    __builtin_memcpy(tiles[t].data[r], static_cast<const uint8_t*>(from) + r * stride, tiles[t].row_bytes);
}
template <int t>
TILE_FUNCTION void tile_store(void* to, int64_t stride) {
  tile_check(tiles[t].rows > 0);
  for (int64_t r = 0; r < tiles[t].rows; ++r)
    __builtin_memcpy(static_cast<uint8_t*>(to) + r * stride, tiles[t].data[r], tiles[t].row_bytes);
}
template <int c, int a, int b>
TILE_FUNCTION void tile_products() {
  Tile& sum = tiles[c];
  const Tile &left = tiles[a], &right = tiles[b];
  tile_check(c != a && a != b && b != c && sum.rows > 0 && sum.rows == left.rows && sum.row_bytes == right.row_bytes);
  tile_check(left.row_bytes == 4 * right.rows && sum.row_bytes % 4 == 0);
  for (int m = 0; m < sum.rows; ++m)
    for (int n = 0; n < sum.row_bytes / 4; ++n) {
      int32_t s;
      __builtin_memcpy(&s, &sum.data[m][4 * n], 4);
      for (int k = 0; k < right.rows; ++k)
        for (int j = 0; j < 4; ++j) s += left.data[m][4 * k + j] * int8_t(right.data[k][4 * n + j]);
      __builtin_memcpy(&sum.data[m][4 * n], &s, 4);
    }
}

#endif
#undef TILE_FUNCTION

}  // namespace
}  // namespace hadal
