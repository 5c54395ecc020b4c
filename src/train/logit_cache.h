// What a teacher says about a token, in 56 bytes: twelve ids with counts that stand for all of its distribution, without bias.
// A file of them serves any number of students; it belongs to one teacher, one tokenizer and one way of cutting the data into rows.
#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/files.h"

namespace hadal::train {

inline constexpr int cached_ids = 12, cached_draws = 255;

struct LogitSample {
  std::array<int32_t, cached_ids> ids = {};
  std::array<uint8_t, cached_ids> counts = {};  // adding up to cached_draws; the probability of ids[i] is taken as counts[i] / cached_draws
  float log_sum_exp = 0, entropy = 0;           // of the logits; nats
};
// Twelve of the vocabulary, the likely ones surely and the others by lot so that the expectation of every token's count is cached_draws
// times its probability (Fearnhead and Clifford 2003, "On-line inference for hidden Markov models", 3.2: the least squared error of all
// unbiased choices of so many). A function of its arguments. Error: a logit that is not finite.
LogitSample sample_logits(std::span<const float> logits, uint64_t seed);

struct CacheKey {
  uint64_t teacher = 0, tokenizer = 0, data = 0, vocab = 0;  // hashes; see hash_model, Encoder::hash
};
uint64_t hash_model(const std::filesystem::path& folder);  // of config.json and all .safetensors. Error: there is none
// Of a row's tokens and which of them count.
uint64_t hash_row(std::span<const int64_t> tokens, std::span<const float> weights);

struct CachedRow {
  uint64_t hash = 0;
  std::vector<LogitSample> samples;  // of the predictions that count, in order
};
// Rows as next() delivers them until it returns false; one that comes again is kept once. The file is whole or not there.
void write_logit_cache(const std::filesystem::path& file, const CacheKey& key, const std::function<bool(CachedRow&)>& next);

class LogitCache {
 public:
  // Error: damaged, or made from another teacher, tokenizer or data than `key` says, by name.
  LogitCache(const std::filesystem::path& file, const CacheKey& key);
  bool has(uint64_t hash) const;
  std::vector<LogitSample> row(uint64_t hash) const;  // Error: none of this row, or damaged
  int64_t rows() const { return rows_; }
  int64_t samples() const { return samples_; }

 private:
  int64_t place_of(uint64_t hash) const;
  MappedFile file_;
  int64_t rows_ = 0, samples_ = 0;
  const std::byte* index_ = nullptr;
};

}  // namespace hadal::train
