#include "data/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/made_files.h"

namespace hadal {
namespace {

using test::error_of;
using test::Folder;
using testing::ElementsAre;
using testing::HasSubstr;

std::unique_ptr<Source> open(const std::string& kind, const std::filesystem::path& path, const std::string& split = "all") {
  SourceConfig config;
  config.kind = kind;
  config.path = path.string();
  config.split = split;
  return open_source(config);
}

std::vector<std::string> texts(const Source& source) {
  std::vector<std::string> all;
  for (int64_t i = 0; i < source.size(); ++i) all.push_back(source.at(i).whole());
  return all;
}

TEST(OpenSource, NamesTheKindsThatThereAre) {
  EXPECT_THAT(error_of([] { open("paper", "x"); }),
              HasSubstr("unknown kind of data source \"paper\": expected one of text, corpus, jsonl, "));
}

TEST(Text, AFolderAPatternOrAFile) {
  Folder folder;
  std::filesystem::create_directory(folder.path() / "in");
  folder.write("b.txt", "second");
  folder.write("a.txt", "first");
  folder.write("in/c.txt", "third");
  folder.write("other.md", "no");
  folder.write("empty.txt", " \n\n");
  EXPECT_THAT(texts(*open("text", folder.path())), ElementsAre("first", "second", "third"));
  EXPECT_THAT(texts(*open("text", folder.path() / "?.txt")), ElementsAre("first", "second"));
  EXPECT_THAT(texts(*open("text", folder.path() / "other.md")), ElementsAre("no"));
  EXPECT_THAT(error_of([&] { open("text", folder.path() / "*.csv"); }), HasSubstr("no file matches"));
  EXPECT_THAT(error_of([&] { open("text", folder.path() / "gone.txt"); }), HasSubstr("there is no such file or folder"));
  EXPECT_THAT(error_of([&] { open("jsonl", folder.path()); }), HasSubstr("expected files that end in .jsonl, found none"));
  EXPECT_THAT(error_of([&] { open("text", folder.path() / "empty.txt"); }), HasSubstr("there is no text in it"));
  EXPECT_THAT(error_of([&] { open("text", ""); }), HasSubstr("needs a path"));
}

TEST(Text, LongTextsAreCutBetweenParagraphsLinesOrCharacters) {
  Folder folder;
  const std::string paragraph = std::string(3000, 'a') + "\n\n", line = std::string(3000, 'b') + "\n";
  std::string characters;
  for (int i = 0; i < 5000; ++i) characters += "字";
  folder.write("a.txt", paragraph + paragraph + paragraph);
  folder.write("b.txt", line + line + line);
  folder.write("c.txt", characters);
  const std::vector<std::string> found = texts(*open("text", folder.path()));
  EXPECT_THAT(found, ElementsAre(paragraph + paragraph, paragraph, line + line, line, characters.substr(0, 8190), characters.substr(8190)));
}

TEST(Text, WhatIsNotUtf8IsNamedByFileAndByte) {
  Folder folder;
  const auto path = folder.write("a.txt", "good \xff bad");
  EXPECT_EQ(error_of([&] { open("text", path); }), path.string() + ": byte 5 is not UTF-8");
}

TEST(Corpus, IsWhereTheScriptPutIt) {
  Folder folder;
  ::setenv("HADAL_CACHE", folder.path().c_str(), 1);
  EXPECT_THAT(error_of([] { open("corpus", "english"); }), HasSubstr("there is no corpus \"english\""));
  std::filesystem::create_directories(folder.path() / "corpus/english");
  folder.write("corpus/english/a.txt", "words");
  EXPECT_THAT(texts(*open("corpus", "english")), ElementsAre("words"));
  ::unsetenv("HADAL_CACHE");
}

TEST(Jsonl, TextsAndQuestions) {
  Folder folder;
  const auto path = folder.write("a.jsonl",
                                 "{\"text\": \"plain\"}\n\n"
                                 "{\"text\": \"document\", \"question\": \"q?\", \"answer\": \"a\", \"type\": \"lookup\", \"more\": 1}\r\n"
                                 "{\"question\": \"q?\", \"answer\": \"a\"}\n"
                                 "{\"messages\": [{\"role\": \"user\", \"content\": \"q?\"}, {\"role\": \"assistant\", \"content\": \"a\"},"
                                 " {\"role\": \"user\", \"content\": \"r?\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}");
  const auto source = open("jsonl", path);
  EXPECT_THAT(texts(*source), ElementsAre("plain", "document\nq?\na", "q?\na", "q?\na\nr?\nb"));
  EXPECT_FALSE(source->at(0).is_question());
  EXPECT_EQ(source->at(1).type, "lookup");
}

TEST(Jsonl, SaysWhatIsWrongInWhichLine) {
  Folder folder;
  const auto message = [&](const std::string& line) {
    const auto path = folder.write("a.jsonl", "{\"text\": \"x\"}\n" + line);
    const std::string error = error_of([&] { (void)open("jsonl", path)->at(1); });
    EXPECT_THAT(error, HasSubstr(path.string() + ":2: "));
    return error;
  };
  EXPECT_THAT(message("[1]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(message("{\"text\": 1}"), HasSubstr("expected a string in the field \"text\""));
  EXPECT_THAT(message("{\"other\": \"x\"}"), HasSubstr("expected the field \"text\" or \"question\""));
  EXPECT_THAT(message("{\"question\": \"x\"}"), HasSubstr("expected both \"question\" and \"answer\""));
  EXPECT_THAT(message("{\"messages\": 1}"), HasSubstr("expected a list in the field \"messages\""));
  EXPECT_THAT(message("{\"messages\": []}"), HasSubstr("messages of user and assistant in turn, found 0"));
  EXPECT_THAT(message("{\"text\": \"x\", \"messages\": []}"), HasSubstr("expected \"messages\" alone, found \"text\" too"));
  EXPECT_THAT(message("{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}"),
              HasSubstr("message 1: expected the role \"user\""));
  message("{\"text\": \"x\"");
  message("{\"text\": \"\xff\"}");
}

TEST(Split, EveryFiftiethExampleIsForTests) {
  for (const int64_t size : {50, 51, 99, 100, 127}) {
    Folder folder;
    std::string lines;
    for (int64_t i = 0; i < size; ++i) lines += "{\"text\": \"" + std::to_string(i) + "\"}\n";
    const auto path = folder.write("a.jsonl", lines);
    std::vector<std::string> together = texts(*open("jsonl", path, "train"));
    const std::vector<std::string> tests = texts(*open("jsonl", path, "test"));
    EXPECT_EQ(int64_t(tests.size()), size / 50);
    EXPECT_EQ(tests[0], "49");
    together.insert(together.end(), tests.begin(), tests.end());
    EXPECT_THAT(together, testing::UnorderedElementsAreArray(texts(*open("jsonl", path)))) << size;
  }
  Folder folder;
  const auto path = folder.write("a.txt", "x");
  EXPECT_THAT(error_of([&] { open("text", path, "test"); }), HasSubstr("the split \"test\" is empty"));
  EXPECT_THAT(error_of([&] { open("text", path, "dev"); }), HasSubstr("unknown split \"dev\": expected train, test or all"));
}

TEST(Files, TheHashIsOfWhatTheExamplesAre) {
  Folder folder;
  const auto path = folder.write("a.txt", "one");
  const uint64_t first = open("text", path)->hash();
  EXPECT_EQ(open("text", path)->hash(), first);
  folder.write("a.txt", "two");
  EXPECT_NE(open("text", path)->hash(), first);
}

}  // namespace
}  // namespace hadal
