// What the documents name is there: links, and the files of this repository in backticks.
#include <gtest/gtest.h>

#include <regex>

#include "sources.h"

namespace hadal {
namespace {
namespace fs = std::filesystem;

std::vector<SourceFile> documents() {
  std::vector<SourceFile> all;
  for (const char* name : {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"})
    all.push_back({name, "", ".md", read_text(fs::path(HADAL_SOURCE) / name)});
  for (const char* top : {"docs", "bench", "deploy"})
    for (SourceFile& file : sources(top, {".md"})) all.push_back(std::move(file));
  return all;
}

// The first group of every match, in order.
std::vector<std::string> found(const std::string& text, const std::regex& what) {
  std::vector<std::string> all;
  for (std::sregex_iterator at(text.begin(), text.end(), what), end; at != end; ++at) all.push_back((*at)[1]);
  return all;
}

// Relative links of Markdown, without what stands behind a #.
std::vector<std::string> links(const std::string& text) {
  static const std::regex link(R"(\]\(([^)#:\s]+)(#[^)\s]*)?\))");
  return found(text, link);
}

// `tests/python/test_parity.py`, also with arguments behind it; not `bench/results/hadal.{json,md}`.
std::vector<std::string> files_in_backticks(const std::string& text) {
  static const std::regex file(R"(`((?:src|tests|bench|script|docs|models|deploy|python|web)/[\w/.-]+\.(?:h|cpp|py|md|toml|json|js))[` ])");
  return found(text, file);
}

TEST(Links, LeadToFiles) {
  for (const SourceFile& document : documents())
    for (const std::string& link : links(document.text)) {
      const fs::path target = fs::path(HADAL_SOURCE) / fs::path(document.path).parent_path() / link;
      EXPECT_TRUE(fs::exists(target)) << document.path << ": " << link;
    }
}

TEST(Links, FilesThatDocumentsNameExist) {
  for (const SourceFile& document : documents())
    for (const std::string& file : files_in_backticks(document.text))
      EXPECT_TRUE(fs::exists(fs::path(HADAL_SOURCE) / file)) << document.path << ": " << file;
}

TEST(Links, TheTestRecognisesWhatItReads) {
  const std::string text =
      "[a](docs/a.md), ![b](b.png#c) [d](https://e/f.md)\n`src/g.h` `bench/h.py --write` `python -m x` `bench/i.{json,md}`";
  EXPECT_EQ(links(text), (std::vector<std::string>{"docs/a.md", "b.png"}));
  EXPECT_EQ(files_in_backticks(text), (std::vector<std::string>{"src/g.h", "bench/h.py"}));
}

}  // namespace
}  // namespace hadal
