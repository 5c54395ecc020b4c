// How fast data for training is made and read, on one thread: examples, tokens and bytes per second.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <filesystem>

#include "data/token_stream.h"
#include "data/train_tokenizer.h"

namespace hadal {
namespace {

std::unique_ptr<Source> worlds(const std::string& kind) {
  SourceConfig config;
  config.kind = kind;
  return open_source(config);
}

struct Prepared {  // a tokenizer of 4,096 tokens, and 2 M tokens of questions
  std::filesystem::path folder = std::filesystem::temp_directory_path() / ("hadal_bench_data_" + std::to_string(::getpid()));
  std::unique_ptr<Source> source = worlds("world_qa");
  std::unique_ptr<Encoder> encoder;
  std::shared_ptr<const Shards> shards;
  Prepared() {
    const Source* sources[] = {source.get()};
    train_tokenizer(sources, folder, {.vocab = 4096, .examples = 20'000});
    encoder = std::make_unique<Encoder>(folder);
    write_shards(*source, *encoder, folder / "shards", {.tokens = 2'000'000});
    shards = std::make_shared<Shards>(folder / "shards");
  }
  ~Prepared() { std::filesystem::remove_all(folder); }
};
const Prepared& prepared() {
  static const Prepared once;
  return once;
}

void make_examples(benchmark::State& state, const char* kind) {
  const auto source = worlds(kind);
  int64_t index = 0, bytes = 0;
  for (auto _ : state) bytes += int64_t(source->at(index++).whole().size());
  state.SetItemsProcessed(index);
  state.SetBytesProcessed(bytes);
}
BENCHMARK_CAPTURE(make_examples, world_qa, "world_qa");
BENCHMARK_CAPTURE(make_examples, world_text, "world_text");

void encode_examples(benchmark::State& state) {
  const Prepared& p = prepared();
  int64_t index = 0, tokens = 0;
  for (auto _ : state) tokens += int64_t(p.encoder->encode(p.source->at(index++)).tokens.size());
  state.SetItemsProcessed(index);
  state.counters["tokens"] = benchmark::Counter(double(tokens), benchmark::Counter::kIsRate);
}
BENCHMARK(encode_examples);

void read_batches(benchmark::State& state) {
  const TokenStream stream(prepared().shards, {.length = 512, .rows = 8});
  std::vector<int32_t> tokens(8 * 513);
  std::vector<uint8_t> weights(8 * 513);
  int64_t index = 0;
  for (auto _ : state) stream.read(index++, 0, 8, tokens.data(), weights.data());
  state.counters["tokens"] = benchmark::Counter(double(index * 8 * 512), benchmark::Counter::kIsRate);
}
BENCHMARK(read_batches);

}  // namespace
}  // namespace hadal

BENCHMARK_MAIN();
