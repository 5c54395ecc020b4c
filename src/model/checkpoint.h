// Weights on disk under their published names, whatever the container: safetensors, torch .bin, GGUF. Opening maps, it does not read.
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace hadal {

class MappedFile;

struct StoredTensor {
  DType dtype = DType::f32;
  std::vector<int64_t> shape;       // outermost first, as the model's own code says it
  std::vector<int64_t> strides;     // in elements, one per side; empty: contiguous
  const std::byte* data = nullptr;  // inside a mapped file or a buffer of the checkpoint; any alignment
  size_t bytes = 0;                 // from data to the end of what may be read
  int64_t count() const;            // product of shape
};

struct Checkpoint {
  std::map<std::string, StoredTensor> tensors;
  std::vector<std::shared_ptr<const MappedFile>> files;
  std::vector<std::shared_ptr<const void>> bytes;  // keeps every tensor's memory alive
};

// A folder in Hugging Face layout (safetensors preferred to .bin, index preferred to listing), or one .gguf, .safetensors or .bin file.
// Error: names the file, what was expected and what was found.
Checkpoint open_checkpoint(const std::filesystem::path& path);

// Values [first, first + count) in the order of the shape, as float; strided tensors are gathered.
// For blocked types `first` and `count` are multiples of a block.
void to_f32(const StoredTensor& tensor, int64_t first, int64_t count, float* out);

}  // namespace hadal
