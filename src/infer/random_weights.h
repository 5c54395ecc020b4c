// Random weights for benchmarks without a checkpoint, made straight in the type that is wanted. Their deviation is 1 / sqrt(inputs), so
// that activations keep their size from layer to layer.
#pragma once
#include "infer/quantize.h"
#include "model/params.h"

namespace hadal {

class RandomWeights {
 public:
  explicit RandomWeights(uint64_t seed) : seed_(seed) {}
  // Every column of blocks is drawn from a few hundred random blocks, in an order of its own: as fast as copying.
  void packed(const std::string& name, DType type, Shape shape, const PackedMemory& to) const;
  void plain(const std::string& name, DType type, Shape shape, Role role, std::byte* to) const;  // f32, f16 or bf16

 private:
  uint64_t seed_of(const std::string& name) const;
  uint64_t seed_;
};

}  // namespace hadal
