#include "data/token_stream.h"

#include <numeric>

#include "core/error.h"
#include "core/random.h"

namespace hadal {

int64_t permuted(int64_t i, int64_t n, uint64_t seed, int64_t epoch) {
  const uint64_t draw = mix_bits(mix_bits(seed) + uint64_t(epoch));
  int64_t step = int64_t(double(n) * 0.6180339887498949) + int64_t(draw % uint64_t(n / 64 + 1));
  while (std::gcd(step, n) != 1) ++step;  // n + 1 at the latest
  const int64_t start = int64_t(mix_bits(draw) % uint64_t(n));
  return int64_t((static_cast<unsigned __int128>(step) * uint64_t(i) + uint64_t(start)) % uint64_t(n));
}

TokenStream::TokenStream(std::shared_ptr<const Shards> shards, const StreamOptions& options)
    : shards_(std::move(shards)), options_(options) {
  if (options.length < 1 || options.rows < 1 || options.segments < 1)
    throw Error("batches of {} rows of {} tokens over {} segments: expected positive numbers", options.rows, options.length,
                options.segments);
  const int64_t span = options.length * options.segments;
  sequences_ = (shards_->tokens() - 1) / span;
  if (sequences_ < 1) throw Error("the data has {} tokens: expected more than {}, one row of a batch", shards_->tokens(), span);
  if (shards_->block() > 0 && span % shards_->block() != 0)
    throw Error("rows of {} tokens would cut questions: the shards were made for multiples of {}", span, shards_->block());
}

double TokenStream::epoch(int64_t index) const {
  return double(index) * double(options_.rows) / double(options_.segments) / double(sequences_);
}

void TokenStream::read(int64_t index, int64_t first, int64_t count, int32_t* tokens, uint8_t* weights) const {
  CHECK(index >= 0 && first >= 0 && first + count <= options_.rows);
  const int64_t segment = index % options_.segments, width = options_.length + 1;
  for (int64_t r = 0; r < count; ++r) {
    const int64_t number = index / options_.segments * options_.rows + first + r;
    const int64_t sequence = permuted(number % sequences_, sequences_, options_.seed, number / sequences_);
    shards_->read((sequence * options_.segments + segment) * options_.length, width, tokens + r * width, weights + r * width);
  }
}

}  // namespace hadal
