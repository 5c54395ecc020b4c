// Any bytes as a .gguf file: an Error, or metadata and tensors, stored and published, that can be read to their last byte.
#include "model/gguf.h"

#include "core/error.h"
#include "read_all.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const hadal::Gguf file(nullptr, {reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    for (const auto& [name, tensor] : file.stored()) hadal::read_all(tensor);
    for (const auto& [name, tensor] : file.checkpoint().tensors) hadal::read_all(tensor);
  } catch (const hadal::Error&) {
  }
  return 0;
}
