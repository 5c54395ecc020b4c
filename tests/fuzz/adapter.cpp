// Any bytes as adapter_config.json: an Error, or a config that gives a scale for every module.
#include <cstdint>
#include <string>

#include "core/error.h"
#include "model/adapter_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const hadal::AdapterConfig config = hadal::parse_adapter_config(text, "fuzz/adapter_config.json");
    for (const char* module : {"model.layers.0.self_attn.q_proj", "model.layers.11.mlp.experts.7.down_proj", "lm_head"})
      if (const float scale = config.scale_of(module, 8); !(scale >= -1e9f && scale <= 1e9f)) __builtin_trap();
  } catch (const hadal::Error&) {
  }
  return 0;
}
