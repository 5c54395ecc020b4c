// Any bytes as a shard of tokens: an Error or a header that describes them to the last byte.
#include "core/error.h"
#include "data/shards.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const hadal::ShardHeader header = hadal::check_shard({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    CHECK(sizeof header + header.tokens * header.token_bytes + (header.tokens + 7) / 8 == size);
  } catch (const hadal::Error&) {
  }
  return 0;
}
