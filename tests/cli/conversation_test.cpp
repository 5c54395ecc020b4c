#include "cli/conversation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "core/error.h"

namespace hadal {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

class ConversationTest : public testing::Test {
 protected:
  ConversationTest() : folder_(std::filesystem::temp_directory_path() / fmt::format("hadal-talk-{}", ::getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~ConversationTest() override { std::filesystem::remove_all(folder_); }
  Conversation load(const std::string& text) {
    std::ofstream(folder_ / "in.json") << text;
    return load_conversation(folder_ / "in.json");
  }
  const std::filesystem::path folder_;
};

TEST_F(ConversationTest, ComesBackAsItWasSaved) {
  Conversation talk;
  talk.system = "Be brief.";
  talk.ask("line one\nline \"two\" 你好");
  talk.messages.push_back(said("assistant", "Yes.", "hm"));
  save_conversation(talk, folder_ / "talk.json");
  const Conversation again = load_conversation(folder_ / "talk.json");
  EXPECT_EQ(again.system, talk.system);
  ASSERT_EQ(again.messages.size(), 2u);
  EXPECT_EQ(again.messages[0].content, talk.messages[0].content);
  EXPECT_EQ(again.messages[1].role, "assistant");
  EXPECT_EQ(again.messages[1].reasoning, "hm");
  ASSERT_EQ(again.all().size(), 3u);
  EXPECT_EQ(again.all()[0].role, "system");
}

TEST_F(ConversationTest, AQuestionWithoutAnswerGivesWayToTheNext) {
  Conversation talk;
  EXPECT_FALSE(talk.take_back_answer());
  talk.ask("one");
  talk.ask("two");
  ASSERT_EQ(talk.messages.size(), 1u);
  EXPECT_EQ(talk.messages[0].content, "two");
  EXPECT_TRUE(talk.take_back_answer());
  talk.messages.push_back(said("assistant", "answer"));
  EXPECT_TRUE(talk.take_back_answer());
  ASSERT_EQ(talk.messages.size(), 1u);
  EXPECT_EQ(talk.messages[0].content, "two");
}

TEST_F(ConversationTest, SaysWhatIsWrongWithAFile) {
  const auto expect = [&](const std::string& text, const std::string& found) {
    EXPECT_THAT([&] { load(text); }, ThrowsMessage<Error>(HasSubstr("found " + found))) << text;
  };
  expect("", "no JSON");
  expect("{", "no JSON");
  expect("[]", "no list of messages");
  expect(R"({"messages": 1})", "no list of messages");
  expect(R"({"messages": [1]})", "a message without role as text");
  expect(R"({"messages": [{"role": "user"}]})", "a message without content as text");
  expect(R"({"messages": [{"role": "user", "content": 5}]})", "a message without content as text");
  expect(R"({"messages": [{"role": "assistant", "content": "x"}]})", "the role \"assistant\" where user and assistant take turns");
  expect(R"({"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "x"}]})",
         "a system message that is not the first");
  expect(R"({"messages": [{"role": "user", "content": "x", "reasoning_content": 1}]})", "a message without reasoning_content as text");
  EXPECT_THAT([&] { load_conversation(folder_ / "absent"); }, ThrowsMessage<Error>(HasSubstr("absent")));
}

TEST_F(ConversationTest, DoesNotReplaceWhatIsNoFile) {
  EXPECT_THAT([&] { save_conversation({}, "/dev/null"); }, ThrowsMessage<Error>(HasSubstr("expected a regular file")));
  EXPECT_THAT([&] { save_conversation({}, folder_); }, ThrowsMessage<Error>(HasSubstr("expected a regular file")));
  EXPECT_THAT([&] { save_conversation({}, folder_ / "no" / "such"); }, ThrowsMessage<Error>(HasSubstr("cannot write")));
}

}  // namespace
}  // namespace hadal
