#include "infer/random_weights.h"

#include <array>
#include <cmath>
#include <cstring>
#include <memory>

#include "core/error.h"
#include "core/pool.h"
#include "core/random.h"
#include "infer/arena.h"
#include "infer/model.h"

namespace hadal {
namespace {

struct Blocks {  // random blocks of one packed type, each with the sums of its rows
  static constexpr int64_t count = 256;
  std::vector<std::byte> bytes;
  std::array<std::array<int32_t, panel_rows>, count> sums;
  double square = 0;  // mean of the squared integers

  explicit Blocks(DType type) : bytes(size_t(count * info_of(type).block_bytes)) {
    // Even scales, and zero codes that put zero in the middle of the codes: w4 7.5, w3 3.5, w2 1.5 of them.
    const int zero = type == DType::w4 ? 6 : type == DType::w3 ? 5 : 3;
    std::vector<int8_t> integers(static_cast<size_t>(block_cols));
    uint64_t state = uint64_t(type);
    const auto draw = [&](uint64_t below) { return (state = mix_bits(state)) % below; };
    for (int64_t b = 0; b < count; ++b)
      for (int64_t r = 0; r < panel_rows; ++r) {
        RowCodes row;
        for (int64_t k = 0; k < block_cols; ++k)
          row.code.push_back(type == DType::w8 ? uint8_t(int8_t(int64_t(draw(255)) - 127)) : uint8_t(draw(uint64_t(levels_of(type)))));
        if (type != DType::w8)
          for (int64_t g = 0; g < block_cols / group_cols; ++g) row.groups.push_back(uint8_t((6 + 2 * draw(3)) | uint64_t(zero) << 4));
        pack_row(type, row, r, block_cols, bytes.data() + b * info_of(type).block_bytes);
        sums[size_t(b)][size_t(r)] = integers_of(type, row, integers.data());
        for (const int8_t v : integers) square += double(v) * v / double(count * panel_rows * block_cols);
      }
  }
};

const Blocks& blocks_of(DType type) {
  static const std::array<Blocks, 4> all{Blocks(DType::w8), Blocks(DType::w4), Blocks(DType::w3), Blocks(DType::w2)};
  return all[size_t(type) - size_t(DType::w8)];
}

}  // namespace

uint64_t RandomWeights::seed_of(const std::string& name) const {
  uint64_t seed = seed_;
  for (const char c : name) seed = mix_bits(seed ^ uint8_t(c));
  return seed;
}

void RandomWeights::packed(const std::string& name, DType type, Shape shape, const PackedMemory& to) const {
  const Blocks& blocks = blocks_of(type);
  const uint64_t seed = seed_of(name);
  const int64_t block_bytes = info_of(type).block_bytes, across = padded_cols(shape.cols) / block_cols;
  const float scale = float(1 / std::sqrt(double(shape.cols) * blocks.square));
  pool().run(padded_rows(shape.rows) / panel_rows, [&](int64_t panel) {
    std::array<int32_t, panel_rows> sums{};
    for (int64_t b = panel * across; b < (panel + 1) * across; ++b) {
      const auto chosen = size_t(mix_bits(seed ^ uint64_t(b)) % Blocks::count);
      std::memcpy(to.blocks + b * block_bytes, blocks.bytes.data() + chosen * size_t(block_bytes), size_t(block_bytes));
      for (size_t r = 0; r < panel_rows; ++r) sums[r] += blocks.sums[chosen][r];
    }
    for (int64_t r = 0; r < panel_rows; ++r) {
      to.scale[panel * panel_rows + r] = scale;
      to.sum[panel * panel_rows + r] = sums[size_t(r)];
    }
  });
}

void RandomWeights::plain(const std::string& name, DType type, Shape shape, Role role, std::byte* to) const {
  const uint64_t seed = seed_of(name);
  const int64_t count = shape.rows * shape.cols;
  const float amplitude = role == Role::bias || role == Role::norm ? 0.f : std::sqrt(3.f / float(shape.cols));  // uniform
  const float centre = role == Role::norm ? 1.f : 0.f;
  pool().run((count + 65535) / 65536, [&](int64_t task) {
    for (int64_t i = task * 65536; i < std::min(count, (task + 1) * 65536); ++i) {
      const float unit = float(int64_t(mix_bits(seed ^ uint64_t(i)) >> 40)) * 0x1p-23f - 1.f, value = centre + amplitude * unit;
      if (type == DType::f32) reinterpret_cast<float*>(to)[i] = value;
      if (type == DType::f16) reinterpret_cast<f16*>(to)[i] = f32_to_f16(value);
      if (type == DType::bf16) reinterpret_cast<bf16*>(to)[i] = f32_to_bf16(value);
    }
  });
}

Model random_model(const ModelConfig& config, const Recipe& recipe, uint64_t seed) {
  const RandomWeights random(seed);
  Checkpoint made;
  Arena arena;
  Params<Weight> params = make_params<Weight>(config);
  for_each_param(config, params, [&](const std::string& name, Shape shape, Role role, Weight&) {
    const bool matrix = role == Role::matrix || role == Role::embedding;
    const DType type = !matrix ? DType::f32 : recipe.type_of(config, name, role).value_or(DType::bf16);
    if (is_packed(type)) {
      const PackedMemory memory = arena.take_packed(type, shape.rows, shape.cols);
      random.packed(name, type, shape, memory);
      const int64_t rows = padded_rows(shape.rows), bytes = packed_bytes(type, shape.rows, shape.cols), block = info_of(type).block_bytes;
      made.tensors[name] = {DType::u8, {bytes / block, block}, {}, memory.blocks, size_t(bytes)};
      made.tensors[name + "_scale"] = {DType::f32, {rows}, {}, reinterpret_cast<std::byte*>(memory.scale), size_t(rows) * 4};
      made.tensors[name + "_sum"] = {DType::i32, {rows}, {}, reinterpret_cast<std::byte*>(memory.sum), size_t(rows) * 4};
      return;
    }
    const int64_t bytes = bytes_of(type, shape.rows * shape.cols);
    std::byte* at = arena.take(bytes);
    random.plain(name, type, shape, role, at);
    made.tensors[name] = {type, shape.cols == 1 ? std::vector{shape.rows} : std::vector{shape.rows, shape.cols}, {}, at, size_t(bytes)};
  });
  made.bytes = arena.buffers();
  return load_model(config, made);
}

Model random_model(const ModelConfig& config, DType type, uint64_t seed) { return random_model(config, Recipe{type, {}}, seed); }

}  // namespace hadal
