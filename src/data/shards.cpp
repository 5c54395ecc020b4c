#include "data/shards.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "core/error.h"
#include "core/random.h"

namespace hadal {
namespace fs = std::filesystem;

namespace {

constexpr std::string_view magic = "hadalsh1";

std::string_view text_of(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

uint64_t hash_of_header(ShardHeader header) {
  header.header = 0;
  return hash_bytes(text_of(std::as_bytes(std::span(&header, 1))));
}

int32_t token_at(const std::byte* ids, int64_t token_bytes, int64_t i) {
  uint32_t id = 0;
  std::memcpy(&id, ids + i * token_bytes, size_t(token_bytes));
  return int32_t(id);
}

}  // namespace

ShardHeader check_shard(std::span<const std::byte> bytes, const std::string& where) {
  ShardHeader header;
  if (bytes.size() < sizeof header) throw Error("{}: {} bytes, expected a header of {}", where, bytes.size(), sizeof header);
  std::memcpy(&header, bytes.data(), sizeof header);
  if (std::string_view(header.magic, magic.size()) != magic) throw Error("{}: it is no shard of tokens", where);
  if (header.header != hash_of_header(header)) throw Error("{}: the header is damaged", where);
  const bool possible =
      (header.token_bytes == 2 || header.token_bytes == 4) && header.tokens <= uint64_t(1) << 48 && header.vocab <= 1u << 31;
  if (!possible) throw Error("{}: impossible values in the header", where);
  const uint64_t expected = sizeof header + header.tokens * header.token_bytes + (header.tokens + 7) / 8;
  if (bytes.size() != expected) throw Error("{}: {} bytes, expected {} for {} tokens", where, bytes.size(), expected, header.tokens);
  if (header.payload != hash_bytes(text_of(bytes.subspan(sizeof header)))) throw Error("{}: the tokens are damaged", where);
  for (int64_t i = 0; i < int64_t(header.tokens); ++i)
    if (const int32_t id = token_at(bytes.data() + sizeof header, header.token_bytes, i); uint32_t(id) >= header.vocab)
      throw Error("{}: token {} is {}, expected less than {}", where, i, id, header.vocab);
  return header;
}

Shards::Shards(const fs::path& folder) : folder_(folder) {
  for (bool last = false; !last;) {
    const fs::path name = shard_path(folder, int64_t(shards_.size()));
    auto file = std::make_unique<MappedFile>(name);
    const auto bytes = file->bytes();
    const ShardHeader header = check_shard(bytes, name.string());
    if (shards_.empty()) first_ = header;
    const auto common = [](const ShardHeader& h) { return std::tuple(h.token_bytes, h.vocab, h.tokenizer, h.source, h.block); };
    if (header.index != shards_.size() || common(header) != common(first_)) throw Error("{}: it belongs to other shards", name.string());
    const std::byte* ids = bytes.data() + sizeof header;
    shards_.push_back({std::move(file), tokens_, int64_t(header.tokens), ids, ids + header.tokens * header.token_bytes});
    tokens_ += int64_t(header.tokens);
    examples_ += int64_t(header.examples);
    last = header.last != 0;
  }
}

void Shards::expect(const Encoder& encoder) const {
  if (encoder.hash() != first_.tokenizer) throw Error("{}: the shards were made with another tokenizer; make them again", folder_.string());
}

void Shards::read(int64_t first, int64_t count, int32_t* tokens, uint8_t* weights) const {
  CHECK(first >= 0 && count >= 0 && first + count <= tokens_);
  auto shard = std::upper_bound(shards_.begin(), shards_.end(), first, [](int64_t at, const Shard& s) { return at < s.first; }) - 1;
  while (count > 0) {
    const int64_t from = first - shard->first, here = std::min(count, shard->tokens - from);
    for (int64_t i = 0; i < here; ++i) {
      tokens[i] = token_at(shard->ids, first_.token_bytes, from + i);
      weights[i] = uint8_t(uint8_t(shard->mask[(from + i) / 8]) >> ((from + i) % 8) & 1);
    }
    first += here, count -= here, tokens += here, weights += here;
    ++shard;
  }
}

}  // namespace hadal
