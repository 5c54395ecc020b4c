// Twelve ids that stand for a distribution: without bias, with little error; and their file, which is whole, or refused by name.
#include "train/logit_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <numeric>

#include "core/error.h"
#include "core/random.h"

namespace hadal::train {
namespace {
namespace fs = std::filesystem;

using testing::HasSubstr;
using testing::ThrowsMessage;

double uniform(uint64_t i) { return double(mix_bits(i) >> 11) * 0x1p-53; }

std::vector<float> some_logits(size_t vocab, double spread, uint64_t seed) {
  std::vector<float> logits(vocab);
  for (size_t i = 0; i < vocab; ++i) logits[i] = float(spread * (uniform(seed * 1000 + i) - 0.5));
  return logits;
}

std::vector<double> probabilities(const std::vector<float>& logits) {
  std::vector<double> p;
  for (const float x : logits) p.push_back(std::exp(double(x)));
  const double sum = std::accumulate(p.begin(), p.end(), 0.);
  for (double& x : p) x /= sum;
  return p;
}

TEST(SampleLogits, CountsAddUpWhateverTheVocabulary) {
  for (const size_t vocab : {1, 7, 8, 12, 13, 17, 127, 4096})
    for (const double spread : {0., 5., 60., 400.})
      for (uint64_t seed = 0; seed < 20; ++seed) {
        const LogitSample s = sample_logits(some_logits(vocab, spread, seed), seed);
        EXPECT_EQ(std::accumulate(s.counts.begin(), s.counts.end(), 0), cached_draws) << vocab << " " << spread;
        for (const int32_t id : s.ids) EXPECT_LT(size_t(id), vocab);
      }
}

TEST(SampleLogits, KnowsLogSumExpAndEntropy) {
  const std::vector<float> flat(64, 3.f);
  const LogitSample s = sample_logits(flat, 1);
  EXPECT_NEAR(s.log_sum_exp, 3 + std::log(64), 1e-5);
  EXPECT_NEAR(s.entropy, std::log(64), 1e-5);
}

TEST(SampleLogits, HasNoBiasAndLessErrorThanTwelveDraws) {
  constexpr int samplings = 20'000;
  const std::vector<float> logits = some_logits(40, 8, 3);
  const std::vector<double> p = probabilities(logits);
  std::vector<double> sum(p.size()), squares(p.size());
  for (int s = 0; s < samplings; ++s) {
    const LogitSample sample = sample_logits(logits, uint64_t(s));
    std::vector<double> found(p.size());
    for (size_t i = 0; i < cached_ids; ++i) found[size_t(sample.ids[i])] += double(sample.counts[i]) / cached_draws;
    for (size_t i = 0; i < p.size(); ++i) sum[i] += found[i], squares[i] += found[i] * found[i];
  }
  double error = 0, of_draws = 0;  // summed variances
  for (size_t i = 0; i < p.size(); ++i) {
    const double mean = sum[i] / samplings, variance = squares[i] / samplings - mean * mean;
    EXPECT_NEAR(mean, p[i], 4.5 * std::sqrt(variance / samplings) + 1e-9) << i;
    error += variance;
    of_draws += p[i] * (1 - p[i]) / cached_ids;
  }
  EXPECT_GT(error, 0);
  EXPECT_LT(error, 0.2 * of_draws);
}

TEST(SampleLogits, RefusesWhatIsNotFinite) {
  EXPECT_THAT([] { sample_logits(std::vector<float>{1, NAN, 2}, 1); }, ThrowsMessage<Error>(HasSubstr("not finite")));
  EXPECT_THAT([] { sample_logits(std::vector<float>{1, INFINITY}, 1); }, ThrowsMessage<Error>(HasSubstr("not finite")));
}

class LogitCacheTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder); }
  void TearDown() override { fs::remove_all(folder); }
  void write(int rows) {
    int next = 0;
    write_logit_cache(file, key, [&](CachedRow& row) {
      if (next == rows) return false;
      row.hash = mix_bits(uint64_t(next % 7));  // from the eighth on they come again
      for (int i = 0; i < next % 7; ++i) row.samples.push_back(sample_logits(some_logits(300, 6, uint64_t(i)), uint64_t(next)));
      ++next;
      return true;
    });
  }
  std::string error_of(const CacheKey& other) const {
    try {
      LogitCache(file, other);
    } catch (const Error& e) {
      return e.what();
    }
    return "none";
  }
  const fs::path folder = fs::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name();
  const fs::path file = folder / "cache";
  const CacheKey key{1, 2, 3, 300};
};

TEST_F(LogitCacheTest, GivesBackWhatWasWrittenIn64BytesAToken) {
  write(16);
  const LogitCache cache(file, key);
  EXPECT_EQ(cache.rows(), 7);
  EXPECT_EQ(cache.samples(), 0 + 1 + 2 + 3 + 4 + 5 + 6);
  for (int n = 0; n < 7; ++n) {
    const std::vector<LogitSample> samples = cache.row(mix_bits(uint64_t(n)));
    ASSERT_EQ(samples.size(), size_t(n));
    for (int i = 0; i < n; ++i) {
      const LogitSample expected = sample_logits(some_logits(300, 6, uint64_t(i)), uint64_t(n));
      EXPECT_EQ(samples[size_t(i)].ids, expected.ids);
      EXPECT_EQ(samples[size_t(i)].counts, expected.counts);
      EXPECT_EQ(samples[size_t(i)].log_sum_exp, expected.log_sum_exp);
      EXPECT_EQ(samples[size_t(i)].entropy, expected.entropy);
    }
  }
  EXPECT_THAT([&] { cache.row(99); }, ThrowsMessage<Error>(HasSubstr("no logits of a row of the data are cached")));
  EXPECT_LE((int64_t(fs::file_size(file)) - 7 * 32 - 72) / cache.samples(), 64);
}

TEST_F(LogitCacheTest, RefusesWhatBelongsToOthers) {
  write(7);
  EXPECT_EQ(error_of(key), "none");
  EXPECT_THAT(error_of({9, 2, 3, 300}), HasSubstr("cached with another teacher"));
  EXPECT_THAT(error_of({1, 9, 3, 300}), HasSubstr("cached with another tokenizer"));
  EXPECT_THAT(error_of({1, 2, 9, 300}), HasSubstr("cached with another data"));
  EXPECT_THAT(error_of({1, 2, 3, 301}), HasSubstr("cached with another vocabulary"));
}

TEST_F(LogitCacheTest, EveryDamageIsSeen) {
  write(7);
  const std::string whole = read_text(file);
  const auto put = [&](const std::string& bytes) { std::ofstream(file, std::ios::binary) << bytes; };
  for (size_t at = 0; at < whole.size(); at += 5) {
    std::string damaged = whole;
    damaged[at] = char(damaged[at] ^ 0x10);
    put(damaged);
    EXPECT_ANY_THROW({
      const LogitCache cache(file, key);
      for (uint64_t n = 0; n < 7; ++n) cache.row(mix_bits(n));
    }) << at;
  }
  for (const size_t size : {size_t(0), size_t(7), whole.size() / 2, whole.size() - 1}) {
    put(whole.substr(0, size));
    EXPECT_ANY_THROW(LogitCache(file, key)) << size;
  }
}

TEST_F(LogitCacheTest, LeavesNothingWhenTheTeacherFails) {
  EXPECT_ANY_THROW(write_logit_cache(file, key, [&](CachedRow&) -> bool { throw Error("enough"); }));
  EXPECT_TRUE(fs::is_empty(folder));
}

TEST_F(LogitCacheTest, HashesOfModelsAndRowsTellThemApart) {
  EXPECT_ANY_THROW(hash_model(folder));
  std::ofstream(folder / "config.json") << "{}";
  std::ofstream(folder / "model.safetensors") << "abc";
  const uint64_t before = hash_model(folder);
  EXPECT_EQ(before, hash_model(folder));
  std::ofstream(folder / "model.safetensors") << "abd";
  EXPECT_NE(before, hash_model(folder));
  const std::vector<int64_t> tokens{1, 2, 3}, others{1, 2, 4};
  const std::vector<float> weights{0, 1, 1}, all{1, 1, 1};
  EXPECT_EQ(hash_row(tokens, weights), hash_row(tokens, weights));
  EXPECT_NE(hash_row(tokens, weights), hash_row(others, weights));
  EXPECT_NE(hash_row(tokens, weights), hash_row(tokens, all));
}

}  // namespace
}  // namespace hadal::train
