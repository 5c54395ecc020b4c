// Any bytes as config.json and, behind a NUL, generation_config.json: an Error, or a config whose derived numbers can be computed.
#include <cstdint>
#include <string>

#include "core/error.h"
#include "model/config.h"
#include "model/presets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const size_t end = text.find('\0');
  try {
    const hadal::ModelConfig c =
        hadal::parse_config(text.substr(0, end), end == std::string::npos ? "" : text.substr(end + 1), "fuzz/config.json");
    if (c.heads * c.q_dim() <= 0 || c.kv_width() <= 0) __builtin_trap();
    if (c.rotated_dim() <= 1 << 12) hadal::rope_frequencies(c);
    if (c.layers * (c.moe.experts + 1) <= 1 << 8 && hadal::count_parameters(c).active <= 0) __builtin_trap();
  } catch (const hadal::Error&) {
  }
  return 0;
}
