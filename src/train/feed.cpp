// Batches of a run: shards made once per source and tokenizer, rows of several sources one under the other.
#include <fmt/format.h>

#include "core/random.h"
#include "model/source.h"
#include "train/trainer.h"

namespace hadal::train {
namespace {
namespace fs = std::filesystem;

uint64_t key_of(const Source& source, const Encoder& encoder, const ShardOptions& options) {
  uint64_t key = mix_bits(source.hash());
  for (const uint64_t part : {encoder.hash(), uint64_t(options.tokens), uint64_t(options.block)}) key = mix_bits(key ^ part);
  return key;
}

std::shared_ptr<const Shards> shards_of(const DataConfig& data, int64_t row, const Encoder& encoder, const Ranks& ranks,
                                        const RunHooks& hooks) {
  const std::unique_ptr<Source> source = open_source(data.source);
  ShardOptions options;
  options.tokens = data.tokens;
  options.block = data.whole_rows ? row : 0;
  options.progress = hooks.preparing;
  const fs::path folder = cache_folder() / "shards" / fmt::format("{:016x}", key_of(*source, encoder, options));
  if (ranks.rank == 0 && !fs::exists(folder)) {
    fs::create_directories(folder.parent_path());
    write_shards(*source, encoder, folder, options);
  }
  wait_for_all(ranks);
  auto shards = std::make_shared<const Shards>(folder);
  shards->expect(encoder);
  return shards;
}

}  // namespace

Feed::Feed(const std::vector<DataConfig>& data, const TrainConfig& config, const Encoder& encoder, const Ranks& ranks,
           const RunHooks& hooks)
    : length_(config.length), segments_(config.segments) {
  for (const DataConfig& each : data) {
    StreamOptions options;
    options.length = config.length;
    options.rows = each.rows;
    options.segments = config.segments;
    options.seed = mix_bits(config.seed + streams_.size());
    streams_.emplace_back(shards_of(each, config.length * config.segments, encoder, ranks, hooks), options);
    rows_ += each.rows;
  }
}

Examples Feed::read(int64_t batch, int64_t first_row, int64_t rows) const {
  const int64_t width = length_ + 1;
  Tensor tokens = torch::empty({rows, width}, torch::kInt), weights = torch::empty({rows, width}, torch::kByte);
  int64_t begin = 0;  // of the source's rows in the batch
  for (const TokenStream& stream : streams_) {
    const int64_t first = std::max(begin, first_row), end = std::min(begin + stream.options().rows, first_row + rows);
    if (first < end)
      stream.read(batch, first - begin, end - first, tokens.data_ptr<int32_t>() + (first - first_row) * width,
                  weights.data_ptr<uint8_t>() + (first - first_row) * width);
    begin += stream.options().rows;
  }
  const Tensor wide = tokens.to(torch::kLong);
  return {wide.slice(1, 0, length_), wide.slice(1, 1), weights.slice(1, 1).to(torch::kFloat), batch, first_row};
}

double Feed::counted(int64_t batch) const { return read(batch, 0, rows_).weights.sum().item<double>(); }

}  // namespace hadal::train
