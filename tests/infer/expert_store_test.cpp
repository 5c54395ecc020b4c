// Experts from disk: the same numbers as from memory, whatever the room; errors of the disk are reported and survived.
#include "infer/expert_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "infer/forward.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

TEST(ExpertCache, PlacesFindsAndForgets) {
  ExpertCache cache(2, 4, 2, Eviction::lru);
  EXPECT_EQ(cache.find(1, 3), -1);
  const int32_t a = cache.place(0, 1), b = cache.place(1, 3);
  EXPECT_NE(a, b);
  EXPECT_EQ(cache.find(0, 1), a);
  EXPECT_EQ(cache.find(1, 3), b);
  cache.forget(a);
  EXPECT_EQ(cache.find(0, 1), -1);
  EXPECT_EQ(cache.place(0, 2), a) << "what was forgotten is free again";
  cache.pin(a);
  cache.pin(b);
  EXPECT_EQ(cache.place(0, 0), -1);
  cache.unpin(b);
  EXPECT_EQ(cache.place(0, 0), b);
  EXPECT_EQ(cache.find(1, 3), -1);
}

TEST(ExpertCache, ChoosesWhatGoes) {
  const auto used = [](ExpertCache& cache, std::vector<std::pair<int64_t, int32_t>> uses) {
    for (const auto& [layer, expert] : uses) {
      if (cache.find(layer, expert) < 0) cache.place(layer, expert);
      cache.use(layer, expert);
    }
  };
  ExpertCache lru(3, 4, 3, Eviction::lru);
  used(lru, {{0, 0}, {0, 0}, {0, 0}, {1, 1}, {2, 2}, {0, 3}});
  EXPECT_EQ(lru.find(0, 0), -1) << "used longest ago";
  ExpertCache lfu(3, 4, 3, Eviction::lfu);
  used(lfu, {{0, 0}, {0, 0}, {0, 0}, {1, 1}, {2, 2}, {0, 3}});
  EXPECT_NE(lfu.find(0, 0), -1);
  EXPECT_EQ(lfu.find(1, 1), -1) << "used once, and before the other";
  ExpertCache stale(3, 4, 3, Eviction::least_stale);
  used(stale, {{0, 0}, {1, 1}, {2, 2}, {0, 3}});
  EXPECT_EQ(stale.find(2, 2), -1) << "its layer has just been";
}

TEST(ExpertCache, OldUsesFade) {
  ExpertCache cache(1, 8, 2, Eviction::lfu);
  cache.place(0, 0);
  for (int i = 0; i < 5; ++i) cache.use(0, 0);
  cache.place(0, 1);
  for (int i = 0; i < 200; ++i) cache.use(0, i % 2 ? 1 : 7);
  cache.place(0, 2);
  EXPECT_EQ(cache.find(0, 0), -1) << "five uses long ago weigh less than many of late";
  EXPECT_NE(cache.find(0, 1), -1);
}

class Store : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("hadal_experts_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::copy(fs::path(HADAL_SOURCE) / "tests/golden" / GetParam() / "model", folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  Model load() const { return load_model(read_config(folder_), open_checkpoint(folder_)); }

  fs::path folder_;
};

std::vector<int32_t> some_tokens(const Model& model, int64_t count) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(int32_t((i * 37 + 11) % model.config.vocab));
  return tokens;
}

// Logits of every row: `chunk` rows at a time.
std::vector<float> logits(const Model& model, int64_t chunk) {
  const std::vector<int32_t> tokens = some_tokens(model, 24);
  KvCache kv(model.config, DType::f32, 64);
  Scratch scratch(model.config, 24, 24);
  KvRows sequence;
  kv.reserve(sequence, 24);
  std::vector<float> all;
  for (int64_t at = 0; at < 24; at += chunk) {
    const Segment segment{&sequence, 0, chunk, at};
    std::vector<int32_t> wanted;
    for (int64_t r = 0; r < chunk; ++r) wanted.push_back(int32_t(r));
    const Mat<float> out = forward(model, {std::span(tokens).subspan(size_t(at), size_t(chunk)), {&segment, 1}, wanted}, kv, scratch);
    for (int64_t r = 0; r < chunk; ++r) all.insert(all.end(), out.row(r), out.row(r) + out.cols);
  }
  return all;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_P(Store, TheSameNumbersInAnyRoom) {
  Model model = load();
  const int64_t slot = ExpertStore::slot_bytes(model), least = model.config.moe.active + 2,
                all = model.config.layers * model.config.moe.experts;
  for (const int64_t chunk : {1, 3, 24}) {
    model.experts = nullptr;
    const std::vector<float> want = logits(model, chunk);
    for (const int64_t slots : {least, all})
      for (const auto path : {DiskReader::Path::uring, DiskReader::Path::pread})
        for (const Eviction eviction : {Eviction::lru, Eviction::lfu, Eviction::least_stale}) {
          model.experts = std::make_shared<ExpertStore>(model, slots * slot, eviction, path);
          EXPECT_TRUE(same_bits(logits(model, chunk), want)) << chunk << " rows at a time, " << slots << " slots";
          const ExpertCounts counts = model.experts->counts();
          EXPECT_GT(counts.bytes_read, 0);
          EXPECT_GE(counts.used, counts.hits);
        }
  }
}

TEST_P(Store, ReadsNothingTwiceWhenAllFits) {
  Model model = load();
  const int64_t all = model.config.layers * model.config.moe.experts;
  model.experts = std::make_shared<ExpertStore>(model, all * ExpertStore::slot_bytes(model));
  logits(model, 24);
  logits(model, 1);
  const auto misses = [&] { return model.experts->counts().used - model.experts->counts().hits; };
  const int64_t before = misses();
  logits(model, 1);
  EXPECT_EQ(misses(), before);
}

TEST_P(Store, TheRoomThatItTakesAtLeast) {
  const Model model = load();
  const int64_t slot = ExpertStore::slot_bytes(model), least = model.config.moe.active + 2;
  EXPECT_EQ(ExpertStore(model, least * slot).slots(), least);
  try {
    ExpertStore(model, least * slot - 1);
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr(fmt::format("expected at least {} bytes, {} experts of {}, found {}", least * slot, least,
                                                         slot, least * slot - 1)));
  }
}

TEST_P(Store, AFileThatShrinksIsAnErrorAndNotTheEnd) {
  const Model model = load();
  const fs::path file = model.files.at(0)->path();
  const fs::path whole = folder_ / "whole";
  fs::copy(file, whole);
  const auto size = fs::file_size(file);
  ExpertStore store(model, ExpertStore::slot_bytes(model) * (model.config.moe.active + 2));
  fs::resize_file(file, 1);
  const std::vector<int32_t> experts = {0, 1};
  int64_t layer = 0;
  while (!model.config.is_moe(layer)) ++layer;
  ExpertSource& source = store.layer(layer);
  source.begin(experts);
  const auto hand_out_all = [&] {
    int64_t count = 0;
    for (auto ready = source.next(); !ready.empty(); ready = source.next()) count += int64_t(ready.size());
    return count;
  };
  for (int expert = 0; expert < 2; ++expert)  // each on its own: none of them came
    EXPECT_THAT(hand_out_all, testing::ThrowsMessage<Error>(testing::AllOf(testing::HasSubstr("layer " + std::to_string(layer)),
                                                                           testing::HasSubstr(file.string()),
                                                                           testing::HasSubstr("the file has become shorter"))));
  fs::copy(whole, file, fs::copy_options::overwrite_existing);  // the same file, not a new one of its name
  ASSERT_EQ(fs::file_size(file), size);
  source.begin(experts);
  EXPECT_EQ(hand_out_all(), 2) << "what failed is read again";
}

INSTANTIATE_TEST_SUITE_P(Golden, Store, testing::Values("deepseek", "deepseek_v2", "deepseek_v3"));

}  // namespace
}  // namespace hadal
