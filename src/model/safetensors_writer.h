// Writes one .safetensors file piece by piece, under a temporary name until it is whole.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace hadal {

struct PlannedTensor {
  std::string name;
  DType dtype;  // a plain type
  std::vector<int64_t> shape;
  int64_t alignment = 64;  // of its first byte in the file, a power of two up to 4096
  int64_t bytes() const;
};

// Of the whole file. The format allows no holes: what alignment skips becomes U8 tensors called "padding.N".
int64_t safetensors_bytes(const std::vector<PlannedTensor>& tensors);

class SafetensorsWriter {
 public:
  // Opens PATH.part and writes the header. Error: names the path and the reason.
  SafetensorsWriter(std::filesystem::path path, const std::vector<PlannedTensor>& tensors);
  ~SafetensorsWriter();  // removes what was not finished
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;
  void write(std::span<const std::byte> bytes);  // the next bytes of the tensors, in the order planned
  void finish();                                 // all bytes are there: to the disk, then renamed
  uint64_t checksum() const { return checksum_; }

 private:
  void put(std::span<const std::byte> bytes);
  void flush();
  std::filesystem::path path_, temporary_;
  int file_ = -1;
  std::vector<int64_t> padding_, sizes_;  // before each tensor; of each
  size_t tensor_ = 0;                     // that is being written
  int64_t written_ = 0;                   // bytes of it
  std::vector<std::byte> buffer_;
  uint64_t checksum_;
};

uint64_t checksum_of(const std::filesystem::path& path);  // of a file as SafetensorsWriter counts it

}  // namespace hadal
