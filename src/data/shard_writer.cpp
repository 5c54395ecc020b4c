// A source to shards: encoded on all threads, written in order.
#include <algorithm>
#include <cstring>
#include <exception>

#include "core/error.h"
#include "core/pool.h"
#include "core/random.h"
#include "data/shards.h"

namespace hadal {
namespace fs = std::filesystem;

namespace {

constexpr int64_t examples_at_once = 1024;

class Writer {
 public:
  Writer(const ShardHeader& common, fs::path folder, int64_t shard_tokens, int32_t filler)
      : header_(common), folder_(std::move(folder)), shard_tokens_(shard_tokens), filler_(filler) {}

  void add(const EncodedExample& example, bool whole) {
    const int64_t block = int64_t(header_.block), length = int64_t(example.tokens.size());
    if (whole && block > 0) fill((block - tokens_ % block) % block, length);
    for (int64_t i = 0; i < length; ++i) push(example.tokens[size_t(i)], example.weights[size_t(i)]);
    ++header_.examples;
    ++examples_;
  }
  int64_t tokens() const { return tokens_; }
  int64_t examples() const { return examples_; }

  void finish() {
    if (tokens_ == 0) throw Error("the data source gives no tokens");
    header_.last = 1;
    write();
  }

 private:
  void fill(int64_t left, int64_t length) {
    if (length <= left) return;
    for (int64_t i = 0; i < left; ++i) push(filler_, 0);
  }
  void push(int32_t token, uint8_t weight) {
    if (int64_t(ids_.size()) == shard_tokens_) write();
    CHECK(token >= 0 && uint64_t(token) < header_.vocab);
    ids_.push_back(token);
    mask_.push_back(weight);
    ++tokens_;
  }
  void write() {
    const size_t width = header_.token_bytes, count = ids_.size();
    std::string payload(count * width + (count + 7) / 8, '\0');
    for (size_t i = 0; i < count; ++i) {
      std::memcpy(payload.data() + i * width, &ids_[i], width);
      if (mask_[i] != 0) payload[count * width + i / 8] = char(uint8_t(payload[count * width + i / 8]) | 1u << i % 8);
    }
    header_.tokens = count;
    header_.payload = hash_bytes(payload);
    header_.header = 0;
    header_.header = hash_bytes({reinterpret_cast<const char*>(&header_), sizeof header_});
    write_atomically(shard_path(folder_, int64_t(header_.index)), [&](std::ostream& out) {
      out.write(reinterpret_cast<const char*>(&header_), sizeof header_);
      out.write(payload.data(), std::streamsize(payload.size()));
    });
    ++header_.index;
    header_.examples = 0;
    ids_.clear();
    mask_.clear();
  }

  ShardHeader header_;
  fs::path folder_;
  int64_t shard_tokens_, tokens_ = 0, examples_ = 0;
  int32_t filler_;
  std::vector<int32_t> ids_;
  std::vector<uint8_t> mask_;
};

struct Encoded {
  EncodedExample example;
  bool is_question = false;
  std::exception_ptr failure;
};

// Examples [first, first + out.size()), on all threads.
void encode(const Source& source, const Encoder& encoder, int64_t first, std::vector<Encoded>& out) {
  pool().run(int64_t(out.size()), [&](int64_t i) {
    Encoded& encoded = out[size_t(i)];
    try {
      const Example example = source.at(first + i);
      encoded = {encoder.encode(example), example.is_question(), nullptr};
    } catch (...) {
      encoded.failure = std::current_exception();
    }
  });
}

void write_all(const Source& source, const Encoder& encoder, Writer& writer, const ShardOptions& options) {
  for (int64_t first = 0; first < source.size(); first += examples_at_once) {
    std::vector<Encoded> encoded(size_t(std::min(examples_at_once, source.size() - first)));
    encode(source, encoder, first, encoded);
    for (size_t i = 0; i < encoded.size(); ++i) {
      const auto& [example, is_question, failure] = encoded[i];
      if (failure) std::rethrow_exception(failure);
      if (is_question && options.block > 0 && int64_t(example.tokens.size()) > options.block)
        throw Error("example {} has {} tokens: expected at most {}, a block", first + int64_t(i), example.tokens.size(), options.block);
      writer.add(example, is_question);
      if (options.tokens > 0 && writer.tokens() >= options.tokens) return;
    }
    if (options.progress) options.progress(writer.tokens(), writer.examples());
  }
}

}  // namespace

fs::path shard_path(const fs::path& folder, int64_t index) { return folder / fmt::format("shard-{:05}.tokens", index); }

void write_shards(const Source& source, const Encoder& encoder, const fs::path& folder, const ShardOptions& options) {
  if (options.shard_tokens < 1 || options.block < 0)
    throw Error("shards of {} tokens with blocks of {}: expected positive numbers", options.shard_tokens, options.block);
  if (source.size() >= endless && options.tokens <= 0) throw Error("the data source never ends: expected how many tokens to write");
  if (fs::exists(folder)) throw Error("{} exists already: expected a folder to be made", folder.string());
  ShardHeader header{};
  std::memcpy(header.magic, "hadalsh1", sizeof header.magic);
  header.vocab = uint64_t(encoder.tokenizer().size());
  header.token_bytes = header.vocab <= 65536 ? 2 : 4;
  header.tokenizer = encoder.hash();
  header.source = source.hash();
  header.block = uint64_t(options.block);

  fs::path part = folder;
  part += ".part";
  fs::remove_all(part);
  fs::create_directories(part);
  try {
    Writer writer(header, part, options.shard_tokens, encoder.end_token());
    write_all(source, encoder, writer, options);
    writer.finish();
    fs::rename(part, folder);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(part, ignored);
    throw;
  }
}

}  // namespace hadal
