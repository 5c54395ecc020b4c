// Memory of weights that are made at load: a few big buffers, each piece on its own cache lines.
#pragma once
#include <algorithm>
#include <memory>
#include <vector>

#include "core/memory.h"
#include "core/packed.h"
#include "infer/quantize.h"

namespace hadal {

class Arena {
 public:
  std::byte* take(int64_t bytes) {
    const size_t rounded = (size_t(bytes) + 63) / 64 * 64;
    if (used_ + rounded > size_) {
      size_ = std::max(rounded, size_t(32) << 20);
      auto buffer = std::make_shared<Buffer>(size_, "the weights");
      base_ = buffer->data();
      used_ = 0;
      buffers_.push_back(std::move(buffer));
    }
    std::byte* at = base_ + used_;
    used_ += rounded;
    return at;
  }
  PackedMemory take_packed(DType type, int64_t rows, int64_t cols) {  // in one piece, as in a file
    const int64_t blocks = packed_bytes(type, rows, cols), padded = padded_rows(rows);
    std::byte* at = take(blocks + 8 * padded);
    return {at, reinterpret_cast<float*>(at + blocks), reinterpret_cast<int32_t*>(at + blocks + 4 * padded)};
  }
  const std::vector<std::shared_ptr<const void>>& buffers() const { return buffers_; }

 private:
  std::byte* base_ = nullptr;
  size_t used_ = 0, size_ = 0;
  std::vector<std::shared_ptr<const void>> buffers_;
};

inline Weight weight_of(DType type, int64_t rows, int64_t cols, const PackedMemory& m) {
  return {type, rows, cols, m.blocks, m.scale, m.sum};
}

}  // namespace hadal
