#include "data/recall.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/model/made_files.h"

namespace hadal {
namespace {

std::unique_ptr<Source> open(const std::vector<std::string>& types, uint64_t seed = 1, const std::string& split = "train") {
  SourceConfig config;
  config.kind = "recall";
  config.types = types;
  config.seed = seed;
  config.split = split;
  return open_source(config);
}

TEST(Recall, TheAnswerFollowsItsLetterAtTheDistance) {
  for (const int64_t letters : {1, 4, 26}) {
    const auto source = open({fmt::format("{} 300", letters)});
    std::set<std::string> answers;
    for (int64_t i = 0; i < 200; ++i) {
      const Example e = source->at(i);
      ASSERT_EQ(e.text.size(), 300u);
      ASSERT_EQ(e.question.size(), 1u);
      EXPECT_EQ(e.text.find(e.question), 0u);
      EXPECT_EQ(e.text.rfind(e.question), 0u) << "once";
      EXPECT_EQ(e.text.substr(1, 8), e.answer);
      EXPECT_EQ(std::count_if(e.text.begin(), e.text.end(), [](char c) { return c >= 'a'; }), letters);
      answers.insert(e.answer);
    }
    EXPECT_GT(answers.size(), 190u);
  }
}

TEST(Recall, IsAFunctionOfItsNumber) {
  EXPECT_EQ(open({"2 50"})->at(7).text, open({"2 50"})->at(7).text);
  EXPECT_NE(open({"2 50"})->at(7).text, open({"2 50"}, 2)->at(7).text);
  EXPECT_NE(open({"2 50"})->at(7).text, open({"2 50"}, 1, "test")->at(7).text);
  EXPECT_NE(open({"2 50"})->hash(), open({"2 51"})->hash());
  EXPECT_NE(open({"2 50"}, 1, "test")->hash(), open({"2 50"}, 2)->hash());
}

TEST(Recall, AsksForSeveralLetters) {
  SourceConfig config;
  config.kind = "recall";
  config.types = {"5 200 3"};
  config.questions = 4;
  const auto source = open_source(config);
  int begins = 0;
  for (int64_t i = 0; i < 200; ++i) {
    const Example e = source->at(i);
    std::set<std::string> asked{e.question};
    EXPECT_NE(e.text.find(e.question + e.answer), std::string::npos);
    begins += e.text.starts_with(e.question);
    ASSERT_EQ(e.more.size(), 3u);
    for (const Turn& turn : e.more) {
      EXPECT_TRUE(asked.insert(turn.question).second) << "asked for twice";
      ASSERT_NE(e.text.find(turn.question), std::string::npos);
      EXPECT_EQ(e.text.substr(e.text.find(turn.question) + 1, 3), turn.answer);
    }
  }
  EXPECT_LT(begins, 80) << "the first is asked for as often as any other";
  config.questions = 6;
  EXPECT_THAT(test::error_of([&] { open_source(config); }), testing::HasSubstr("5 letters"));
}

TEST(Recall, SaysWhatItExpects) {
  for (const std::string wrong : {"", "3", "0 50", "27 900", "2 10", "2 50 0", "2 50 25", "2 50 1 1", "two 50"})
    EXPECT_THAT(test::error_of([&] { open({wrong}); }), testing::HasSubstr("LETTERS DISTANCE")) << wrong;
  EXPECT_THAT(test::error_of([] { open({}); }), testing::HasSubstr("expected one type"));
}

}  // namespace
}  // namespace hadal
