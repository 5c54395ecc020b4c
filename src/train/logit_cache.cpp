// File: samples of 56 bytes (12 ids of three bytes, 12 counts, log-sum-exp, entropy), an index of 32 bytes a row sorted by hash, a trailer.
// Little-endian. The trailer is last because nothing of it is known before everything is written.
#include "train/logit_cache.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <unordered_set>

#include "core/error.h"
#include "core/random.h"

namespace hadal::train {
namespace fs = std::filesystem;
namespace {

constexpr char magic[8] = {'h', 'a', 'd', 'a', 'l', 'l', 'g', '1'};
constexpr size_t sample_bytes = 56;
static_assert(cached_ids * 3 + cached_ids + 2 * sizeof(float) == sample_bytes);

struct IndexEntry {
  uint64_t row, first, count, check;  // hash of the row; its samples; hash of their bytes
};
struct Trailer {
  char magic[8];
  CacheKey key;
  uint64_t rows, samples, index, check;  // hashes of the index, and of this with zero here
};

std::string_view text_of(const void* data, size_t bytes) { return {static_cast<const char*>(data), bytes}; }

uint64_t check_of(Trailer trailer) {
  trailer.check = 0;
  return hash_bytes(text_of(&trailer, sizeof trailer));
}

void pack(const LogitSample& sample, char* to) {
  for (int i = 0; i < cached_ids; ++i)
    for (int byte = 0; byte < 3; ++byte) *to++ = char(uint32_t(sample.ids[size_t(i)]) >> (8 * byte) & 255);
  std::memcpy(to, sample.counts.data(), cached_ids);
  std::memcpy(to + cached_ids, &sample.log_sum_exp, sizeof(float));
  std::memcpy(to + cached_ids + sizeof(float), &sample.entropy, sizeof(float));
}

LogitSample unpack(const std::byte* from) {
  LogitSample sample;
  for (int32_t& id : sample.ids) {
    id = int32_t(uint32_t(from[0]) | uint32_t(from[1]) << 8 | uint32_t(from[2]) << 16);
    from += 3;
  }
  std::memcpy(sample.counts.data(), from, cached_ids);
  std::memcpy(&sample.log_sum_exp, from + cached_ids, sizeof(float));
  std::memcpy(&sample.entropy, from + cached_ids + sizeof(float), sizeof(float));
  return sample;
}

IndexEntry entry_at(const std::byte* index, int64_t i) {
  IndexEntry entry;
  std::memcpy(&entry, index + size_t(i) * sizeof entry, sizeof entry);
  return entry;
}

double uniform(uint64_t seed, uint64_t which) { return double(mix_bits(seed ^ mix_bits(which)) >> 11) * 0x1p-53; }  // [0, 1)

struct Choice {
  std::vector<int32_t> ids;
  std::vector<double> weights;  // adding up to 1
  void add(int32_t id, double weight) {
    if (!ids.empty() && ids.back() == id) {
      weights.back() += weight;
    } else {
      ids.push_back(id), weights.push_back(weight);
    }
  }
};

// Tokens of at least the threshold with their probability; of the others so many that the threshold stands for each, at even distances in
// their sum, behind a beginning by lot.
Choice choose(const std::vector<double>& p, double start) {
  const size_t n = std::min(p.size(), size_t(cached_ids));
  std::vector<int32_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + std::ptrdiff_t(n), order.end(),
                    [&](int32_t a, int32_t b) { return p[size_t(a)] != p[size_t(b)] ? p[size_t(a)] > p[size_t(b)] : a < b; });
  std::sort(order.begin() + std::ptrdiff_t(n), order.end());
  std::vector<double> rest(n);  // of the tokens from this place on
  double sum = 0;
  for (size_t i = p.size(); i-- > 0;) {
    sum += p[size_t(order[i])];
    if (i < n) rest[i] = sum;
  }
  size_t sure = 0;
  while (p[size_t(order[sure])] * double(n - sure) > rest[sure]) ++sure;  // ends: the last of n is at most what is left
  Choice choice;
  for (size_t i = 0; i < sure; ++i) choice.add(order[i], p[size_t(order[i])]);
  const double threshold = rest[sure] / double(n - sure);
  double passed = 0, next = start * threshold;
  size_t drawn = 0;
  for (size_t i = sure; i < p.size() && drawn < n - sure; ++i) {
    passed += p[size_t(order[i])];
    for (; next < passed && drawn < n - sure; next += threshold, ++drawn) choice.add(order[i], threshold);
  }
  return choice;
}

}  // namespace

LogitSample sample_logits(std::span<const float> logits, uint64_t seed) {
  CHECK(!logits.empty());
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p(logits.size());
  double sum = 0, mean = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += p[i] = std::exp(double(logits[i]) - largest);
  if (!std::isfinite(sum)) throw Error("the teacher's logits are not finite");
  for (size_t i = 0; i < p.size(); ++i) {
    p[i] /= sum;
    if (p[i] > 0) mean += p[i] * (double(logits[i]) - largest);
  }
  const Choice choice = choose(p, uniform(seed, 0));
  LogitSample sample;
  sample.log_sum_exp = float(largest + std::log(sum));
  sample.entropy = float(std::log(sum) - mean);
  // Draws of the choice, at even distances as well: the expectation of each count is its weight's part of them.
  const double offset = uniform(seed, 1);
  double passed = 0;
  int before = 0;
  for (size_t i = 0; i < choice.ids.size(); ++i) {
    passed += choice.weights[i];
    const int until = i + 1 == choice.ids.size() ? cached_draws : std::min(cached_draws, int(cached_draws * passed + offset));
    sample.ids[i] = choice.ids[i];
    sample.counts[i] = uint8_t(until - before);
    before = until;
  }
  return sample;
}

uint64_t hash_model(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  if (files.empty()) throw Error("{}: expected a model in a folder with .safetensors files, found none", folder.string());
  std::ranges::sort(files);
  uint64_t hash = hash_bytes(read_text(folder / "config.json"));
  for (const fs::path& file : files) {
    const MappedFile mapped(file);
    hash = hash_bytes(text_of(mapped.bytes().data(), mapped.bytes().size()), hash);
  }
  return hash;
}

uint64_t hash_row(std::span<const int64_t> tokens, std::span<const float> weights) {
  return hash_bytes(text_of(weights.data(), weights.size_bytes()), hash_bytes(text_of(tokens.data(), tokens.size_bytes())));
}

void write_logit_cache(const fs::path& file, const CacheKey& key, const std::function<bool(CachedRow&)>& next) {
  if (key.vocab > 1u << 24) throw Error("a vocabulary of {} is too large for a logit cache: expected at most {}", key.vocab, 1 << 24);
  write_atomically(file, [&](std::ostream& out) {
    std::vector<IndexEntry> index;
    std::unordered_set<uint64_t> known;
    uint64_t samples = 0;
    std::string bytes;
    for (CachedRow row; next(row); row = {}) {
      if (!known.insert(row.hash).second) continue;
      bytes.resize(row.samples.size() * sample_bytes);
      for (size_t i = 0; i < row.samples.size(); ++i) pack(row.samples[i], bytes.data() + i * sample_bytes);
      out.write(bytes.data(), std::streamsize(bytes.size()));
      if (!out) throw Error("the disk took only a part");
      index.push_back({row.hash, samples, row.samples.size(), hash_bytes(bytes)});
      samples += row.samples.size();
    }
    std::ranges::sort(index, {}, &IndexEntry::row);
    const size_t index_bytes = index.size() * sizeof(IndexEntry);
    Trailer trailer{{}, key, index.size(), samples, hash_bytes(text_of(index.data(), index_bytes)), 0};
    std::memcpy(trailer.magic, magic, sizeof magic);
    trailer.check = check_of(trailer);
    out.write(reinterpret_cast<const char*>(index.data()), std::streamsize(index_bytes));
    out.write(reinterpret_cast<const char*>(&trailer), sizeof trailer);
  });
}

LogitCache::LogitCache(const fs::path& file, const CacheKey& key) : file_(file) {
  const auto bytes = file_.bytes();
  Trailer trailer;
  if (bytes.size() < sizeof trailer) throw Error("{}: {} bytes: it is no whole logit cache", file.string(), bytes.size());
  std::memcpy(&trailer, bytes.data() + bytes.size() - sizeof trailer, sizeof trailer);
  if (std::memcmp(trailer.magic, magic, sizeof magic) != 0 || trailer.check != check_of(trailer))
    throw Error("{}: it is no whole logit cache", file.string());
  const auto need = [&](uint64_t found, uint64_t expected, const char* what) {
    if (found != expected)
      throw Error("{}: the logits were cached with another {} ({:016x}, expected {:016x}); remove the file to make it again", file.string(),
                  what, found, expected);
  };
  need(trailer.key.teacher, key.teacher, "teacher");
  need(trailer.key.tokenizer, key.tokenizer, "tokenizer");
  need(trailer.key.data, key.data, "data");
  need(trailer.key.vocab, key.vocab, "vocabulary");
  const bool possible = trailer.rows <= bytes.size() && trailer.samples <= bytes.size();
  if (!possible || bytes.size() != trailer.samples * sample_bytes + trailer.rows * sizeof(IndexEntry) + sizeof trailer)
    throw Error("{}: {} bytes, another number than its {} rows and {} samples take", file.string(), bytes.size(), trailer.rows,
                trailer.samples);
  rows_ = int64_t(trailer.rows);
  samples_ = int64_t(trailer.samples);
  index_ = bytes.data() + trailer.samples * sample_bytes;
  if (hash_bytes(text_of(index_, trailer.rows * sizeof(IndexEntry))) != trailer.index)
    throw Error("{}: the index is damaged", file.string());
}

int64_t LogitCache::place_of(uint64_t hash) const {  // of the first that is not less
  int64_t low = 0, high = rows_;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (entry_at(index_, middle).row < hash) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

bool LogitCache::has(uint64_t hash) const {
  const int64_t place = place_of(hash);
  return place < rows_ && entry_at(index_, place).row == hash;
}

std::vector<LogitSample> LogitCache::row(uint64_t hash) const {
  if (!has(hash)) throw Error("{}: no logits of a row of the data are cached", file_.path().string());
  const IndexEntry entry = entry_at(index_, place_of(hash));
  if (entry.first > uint64_t(samples_) || entry.count > uint64_t(samples_) - entry.first)
    throw Error("{}: the index is damaged", file_.path().string());
  const std::byte* from = file_.bytes().data() + entry.first * sample_bytes;
  if (hash_bytes(text_of(from, entry.count * sample_bytes)) != entry.check)
    throw Error("{}: the logits of a row are damaged", file_.path().string());
  std::vector<LogitSample> samples(entry.count);
  for (size_t i = 0; i < samples.size(); ++i) samples[i] = unpack(from + i * sample_bytes);
  return samples;
}

}  // namespace hadal::train
