#include "data/train_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "data/encoder.h"
#include "tests/data/fixed_source.h"
#include "tests/model/made_files.h"

namespace hadal {
namespace {

using test::error_of;
using test::FixedSource;
using test::Folder;
using testing::HasSubstr;

using Words = std::vector<std::pair<std::string, int64_t>>;

// The same by counting all pairs of all words anew for each merge.
std::vector<std::array<int32_t, 3>> merges_by_counting(const Words& words, int64_t pieces) {
  std::vector<std::string> bytes;
  for (int byte = 0; byte < 256; ++byte) bytes.push_back(std::string(1, char(byte)));
  std::vector<std::vector<int32_t>> split;
  for (const auto& [text, count] : words) {
    split.emplace_back();
    for (const char byte : text) split.back().push_back(uint8_t(byte));
  }
  std::vector<std::array<int32_t, 3>> merges;
  while (int64_t(bytes.size()) < pieces) {
    std::map<std::pair<int32_t, int32_t>, int64_t> counts;
    for (size_t w = 0; w < split.size(); ++w)
      for (size_t i = 0; i + 1 < split[w].size(); ++i) counts[{split[w][i], split[w][i + 1]}] += words[w].second;
    std::pair<int32_t, int32_t> best;
    int64_t most = 1;
    for (const auto& [pair, count] : counts)
      if (count > most) most = count, best = pair;
    if (most < 2) break;
    const std::string text = bytes[size_t(best.first)] + bytes[size_t(best.second)];
    const auto known = std::find(bytes.begin(), bytes.end(), text);
    const int32_t made = int32_t(known - bytes.begin());
    if (known == bytes.end()) bytes.push_back(text);
    merges.push_back({best.first, best.second, made});
    for (auto& word : split) {
      std::vector<int32_t> merged;
      for (size_t i = 0; i < word.size(); ++i) {
        const bool here = i + 1 < word.size() && word[i] == best.first && word[i + 1] == best.second;
        merged.push_back(here ? made : word[i]);
        i += here;
      }
      word = merged;
    }
  }
  return merges;
}

TEST(LearnMerges, AsByCountingAnew) {
  uint64_t state = 1;
  for (int round = 0; round < 20; ++round) {
    std::map<std::string, int64_t> words;
    for (int w = 0; w < 60; ++w) {
      std::string word;
      for (uint64_t i = 0; i < 1 + (state >> 40) % 9; ++i)
        word += char('a' + ((state = state * 6364136223846793005 + 1442695040888963407) >> 33) % 3);
      words[word] += int64_t(1 + (state >> 50) % 5);
    }
    const Words list(words.begin(), words.end());
    std::vector<std::array<int32_t, 3>> found;
    for (const LearntMerge& m : learn_merges(list, 330)) found.push_back({m.left, m.right, m.made});
    EXPECT_EQ(found, merges_by_counting(list, 330)) << round;
  }
}

TEST(LearnMerges, EndsWhenNoPairComesTwice) {
  EXPECT_TRUE(learn_merges({}, 300).empty());
  EXPECT_TRUE(learn_merges({{"abc", 1}}, 300).empty());
  EXPECT_EQ(learn_merges({{"abc", 2}}, 300).size(), 2u);
  EXPECT_EQ(learn_merges({{"abc", 2}}, 257).size(), 1u);
}

TEST(TrainTokenizer, MadeForWorldsItWritesThemAsWordsAndCharacters) {
  SourceConfig config;
  config.kind = "world_qa";
  const auto source = open_source(config);
  const Source* sources[] = {source.get()};
  Folder folder;
  EXPECT_EQ(train_tokenizer(sources, folder.path(), {.vocab = 1024, .examples = 5'000}), 1024);
  const Encoder encoder(folder.path());
  EXPECT_EQ(encoder.tokenizer().size(), 1024);
  for (const auto& [name, id] :
       std::map<std::string, int>{{"<begin>", 0}, {"<end>", 1}, {"<system>", 2}, {"<user>", 3}, {"<assistant>", 4}})
    EXPECT_EQ(encoder.tokenizer().find(name), id);

  int64_t tokens = 0, longest = 0;
  for (int64_t i = 10'000; i < 10'500; ++i) {
    const Example example = source->at(i);
    const EncodedExample encoded = encoder.encode(example);
    EXPECT_EQ(encoded.tokens[0], 0);
    EXPECT_EQ(encoded.tokens[1], 3);
    EXPECT_EQ(encoded.tokens.back(), 1);
    EXPECT_EQ(encoder.tokenizer().decode({encoded.tokens.begin() + 2, encoded.tokens.end() - 1}),
              example.prompt() + "<assistant>" + example.answer);
    tokens += int64_t(encoded.tokens.size());
    longest = std::max(longest, int64_t(encoded.tokens.size()));
  }
  EXPECT_LT(tokens, 500 * 150);
  EXPECT_LT(longest, 200);
  // Each digit is a token: 1962 is not one name among thousands.
  EXPECT_EQ(encoder.tokenizer().encode("1962").size(), 4u);
}

TEST(TrainTokenizer, TheSameDataMakesTheSameTokenizer) {
  FixedSource source;
  source.add("the cat and the dog, the house and the garden; 猫和狗，猫和狗");
  const Source* sources[] = {&source};
  Folder first, second;
  EXPECT_EQ(train_tokenizer(sources, first.path(), {.vocab = 300}), train_tokenizer(sources, second.path(), {.vocab = 300}));
  EXPECT_EQ(Encoder(first.path()).hash(), Encoder(second.path()).hash());
}

TEST(TrainTokenizer, SaysWhatIsWrong) {
  Folder folder;
  FixedSource source;
  const Source* sources[] = {&source};
  EXPECT_THAT(error_of([&] { train_tokenizer(sources, folder.path(), {.vocab = 260}); }), HasSubstr("260 tokens: expected at least 261"));
  EXPECT_THAT(error_of([&] { train_tokenizer(sources, folder.path()); }), HasSubstr("a tokenizer needs text"));
  source.add("bad \xff");
  EXPECT_THAT(error_of([&] { train_tokenizer(sources, folder.path()); }), HasSubstr("example 0 of the tokenizer's data is not UTF-8"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace hadal
