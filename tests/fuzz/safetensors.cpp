// Any bytes as a .safetensors file: an Error or tensors that can be read to their last byte.
#include "model/safetensors.h"
#include "core/error.h"
#include "read_all.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    for (const auto& [name, tensor] : hadal::parse_safetensors({reinterpret_cast<const std::byte*>(data), size}, "fuzz"))
      hadal::read_all(tensor);
  } catch (const hadal::Error&) {
  }
  return 0;
}
