// Examples as tokens in files: read by mmap, the same bytes for the same source and tokenizer.
// A shard is a header of 88 bytes, `tokens` ids (u16 while the vocabulary has at most 65,536, else u32), and a bit per token: whether
// its prediction counts in the loss. Little-endian, as the machines that hadal runs on.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/files.h"
#include "data/encoder.h"
#include "data/source.h"

namespace hadal {

struct ShardHeader {
  char magic[8];         // "hadalsh1"
  uint32_t token_bytes;  // 2 or 4
  uint32_t last;         // 1: no shard follows
  uint64_t index, tokens, examples, vocab;
  uint64_t tokenizer, source, block;  // hashes of both; see ShardOptions
  uint64_t payload, header;           // hashes of what follows, and of this header with zero here
};
static_assert(sizeof(ShardHeader) == 88);

struct ShardOptions {
  int64_t tokens = 0;  // stop behind the example that reaches so many; 0: at the end of the source
  int64_t shard_tokens = int64_t(1) << 24;
  int64_t block = 0;  // > 0: no question crosses a multiple of it, what is left is filled with end tokens that do not count
  std::function<void(int64_t tokens, int64_t examples)> progress = {};  // now and then
};

// Writes shard-00000.tokens and so on into `folder`, which appears when all is written. Every example of the source in order, packed end
// to end. Error: the folder exists, an example that cannot be encoded, a question longer than a block, a source without tokens, a full
// disk.
void write_shards(const Source& source, const Encoder& encoder, const std::filesystem::path& folder, const ShardOptions& options = {});

class Shards {
 public:
  explicit Shards(const std::filesystem::path& folder);  // Error: a missing shard, another length or hash than the header says
  int64_t tokens() const { return tokens_; }
  int64_t examples() const { return examples_; }
  int64_t vocab() const { return int64_t(first_.vocab); }
  int64_t block() const { return int64_t(first_.block); }
  void expect(const Encoder& encoder) const;  // Error: made with another tokenizer
  // Tokens [first, first + count), and for each whether its prediction counts.
  void read(int64_t first, int64_t count, int32_t* tokens, uint8_t* weights) const;

 private:
  struct Shard {
    std::unique_ptr<MappedFile> file;
    int64_t first, tokens;
    const std::byte* ids;
    const std::byte* mask;
  };
  std::filesystem::path folder_;
  ShardHeader first_;  // of the first shard: what all have in common
  std::vector<Shard> shards_;
  int64_t tokens_ = 0, examples_ = 0;
};

std::filesystem::path shard_path(const std::filesystem::path& folder, int64_t index);

// One shard's bytes: its header when all of it is as the header says. Error names `where`.
ShardHeader check_shard(std::span<const std::byte> bytes, const std::string& where);

}  // namespace hadal
