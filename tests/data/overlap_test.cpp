#include "data/overlap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/data/fixed_source.h"
#include "tests/model/made_files.h"

namespace hadal {
namespace {

using test::error_of;
using test::FixedSource;
using testing::HasSubstr;

std::string numbers(int first, int count) {
  std::string text;
  for (int i = first; i < first + count; ++i) text += "word" + std::to_string(i) + (i % 3 == 0 ? ", " : " ");
  return text;
}

TEST(Overlap, CountsRunsOfWords) {
  for (const int count : {1, 12, 13, 14, 100}) EXPECT_EQ(word_runs(numbers(0, count), 13).size(), size_t(std::max(1, count - 12))) << count;
  EXPECT_TRUE(word_runs("... !", 13).empty());
  EXPECT_EQ(word_runs("one, TWO three", 3), word_runs("One two\nthree.", 3));
  EXPECT_NE(word_runs("one two three", 3), word_runs("one three two", 3));
  EXPECT_EQ(word_runs("小红住在北京。", 2).size(), 5u);
  EXPECT_EQ(word_runs("小红住在北京。", 6), word_runs("小红，住在 北京", 6));
}

TEST(Overlap, OfTextsThatShareAPart) {
  FixedSource train, test;
  train.add(numbers(0, 100));
  test.add(numbers(200, 50));  // nothing
  test.add(numbers(90, 50));   // 10 words: no run of 13
  test.add(numbers(80, 50));   // 20 words: 8 runs of 38
  test.add(numbers(50, 50));   // all
  const Overlap overlap = measure_overlap({&train}, test);
  EXPECT_EQ(overlap.test_examples, 4);
  EXPECT_EQ(overlap.runs, 4 * 38);
  EXPECT_EQ(overlap.shared_runs, 8 + 38);
  EXPECT_EQ(overlap.touched, 2);
  EXPECT_EQ(overlap.copied, 1);
  FixedSource other;
  other.add(numbers(200, 50));
  EXPECT_EQ(measure_overlap({&train, &other}, test).copied, 2);
  expect_little_overlap(overlap, 0.25);
  EXPECT_THAT(error_of([&] { expect_little_overlap(overlap, 0.2); }), HasSubstr("1 of 4 test examples are in the training data"));
}

TEST(Overlap, TestsOfMadeQuestionsAreNotInTraining) {
  SourceConfig config;
  config.kind = "world_qa";
  const auto train = open_source(config);
  const OverlapOptions options{.train_examples = 20'000, .test_examples = 500};
  for (const char* split : {"worlds", "templates", "compositions"}) {
    config.split = split;
    const Overlap overlap = measure_overlap({train.get()}, *open_source(config), options);
    EXPECT_EQ(overlap.copied, 0) << split;
    EXPECT_LT(double(overlap.shared_runs), 0.1 * double(overlap.runs)) << split;
  }
  config.split = "train";
  EXPECT_EQ(measure_overlap({train.get()}, *open_source(config), options).copied, 500);
}

}  // namespace
}  // namespace hadal
