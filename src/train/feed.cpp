// Batches of a run: shards made once per source and tokenizer, rows of several sources one under the other.
#include <fmt/format.h>

#include "core/files.h"
#include "core/random.h"
#include "model/source.h"
#include "train/trainer.h"

namespace hadal::train {
namespace {
namespace fs = std::filesystem;

uint64_t key_of(const Source& source, const Encoder& encoder, const ShardOptions& options) {
  uint64_t key = mix_bits(hash_of_examples(source));
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
    const FolderLock one_run_at_a_time(folder.parent_path(), hooks.waiting);
    if (!fs::exists(folder)) write_shards(*source, encoder, folder, options);
  }
  wait_for_all(ranks);
  auto shards = std::make_shared<const Shards>(folder);
  shards->expect(encoder);
  return shards;
}

}  // namespace

Feed::Feed(const std::vector<DataConfig>& data, const TrainConfig& config, const Encoder& encoder, const Ranks& ranks,
           const RunHooks& hooks)
    : length_(config.length), segments_(config.segments), end_token_(encoder.end_token()) {
  for (const DataConfig& each : data) {
    StreamOptions options;
    options.length = config.length;
    options.rows = each.rows;
    options.segments = config.segments;
    options.seed = mix_bits(config.seed + parts_.size());
    parts_.push_back({{shards_of(each, config.length * config.segments, encoder, ranks, hooks), options}, each.prompt_weight});
    rows_ += each.rows;
  }
}

Examples Feed::read(int64_t batch, int64_t first_row, int64_t rows) const {
  const int64_t width = length_ + 1;
  const Tensor tokens = torch::empty({rows, width}, torch::kInt), counts = torch::empty({rows, width}, torch::kByte);
  const Tensor prompt_weight = torch::empty({rows, 1});
  int64_t begin = 0;  // of the source's rows in the batch
  for (const auto& [stream, weight] : parts_) {
    const int64_t first = std::max(begin, first_row), end = std::min(begin + stream.options().rows, first_row + rows),
                  at = first - first_row;
    if (first < end) {
      stream.read(batch, first - begin, end - first, tokens.data_ptr<int32_t>() + at * width, counts.data_ptr<uint8_t>() + at * width);
      prompt_weight.slice(0, at, end - first_row).fill_(weight);
    }
    begin += stream.options().rows;
  }
  const Tensor wide = tokens.to(torch::kLong), inputs = wide.slice(1, 0, length_), targets = wide.slice(1, 1);
  const Tensor filler = (inputs == end_token_) & (targets == end_token_);
  const Tensor weights = counts.slice(1, 1).to(torch::kFloat);
  return {inputs, targets, torch::where((weights > 0) | filler, weights, prompt_weight), batch, first_row};
}

double Feed::counted(int64_t batch) const { return read(batch, 0, rows_).weights.sum().item<double>(); }

}  // namespace hadal::train
