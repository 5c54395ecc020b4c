// Any bytes as a torch .bin file when they begin as a zip archive does, else as its pickle alone.
#include "model/pickle.h"

#include <cstring>

#include "core/error.h"
#include "model/torch_bin.h"
#include "read_all.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    if (size < 2 || std::memcmp(data, "PK", 2) != 0) {
      hadal::unpickle_state_dict(bytes, "fuzz");
    } else {
      for (const auto& [name, tensor] : hadal::parse_torch_bin(bytes, "fuzz")) hadal::read_all(tensor);
    }
  } catch (const hadal::Error&) {
  }
  return 0;
}
