// Files stay small, and the repository speaks of itself alone.
#include <gtest/gtest.h>

#include <iostream>

#include "sources.h"

namespace hadal {
namespace {

size_t line_count(const SourceFile& file) { return lines_of(file.text).size(); }

TEST(Sizes, HeadersUnder150LinesSourcesUnder800) {
  for (const char* top : {"src", "tests", "bench"})
    for (const SourceFile& file : sources(top, {".h", ".cpp", ".py"})) {
      const size_t lines = line_count(file);
      if (file.extension == ".h") {
        EXPECT_LT(lines, 150u) << file.path << ": split it by idea";
      } else {
        EXPECT_LE(lines, 800u) << file.path << ": split it by idea";
        if (lines >= 500) std::cout << "warning: " << file.path << " has " << lines << " lines, expected under 500\n";
      }
    }
}

TEST(Sizes, ReadingOrderIsAtMost800Lines) {
  size_t total = 0;
  for (const char* name :
       {"model/config.h", "model/params.h", "infer/forward.h", "infer/forward.cpp", "infer/attention.cpp", "kernels/kernels.h"}) {
    const std::string text = read_text(std::filesystem::path(HADAL_SOURCE) / "src" / name);
    ASSERT_FALSE(text.empty()) << name;
    total += lines_of(text).size();
  }
  EXPECT_LE(total, 800u) << "README promises a newcomer six short files";
}

// In the file itself or in the header beside it, which every reader of the file sees first.
TEST(Sizes, EachFileOpensWithWhatItIsFor) {
  for (const SourceFile& file : sources("src", {".h", ".cpp"})) {
    const std::filesystem::path header = std::filesystem::path(HADAL_SOURCE) / std::filesystem::path(file.path).replace_extension(".h");
    const bool explained = file.text.starts_with("// ") || (std::filesystem::exists(header) && read_text(header).starts_with("// "));
    EXPECT_TRUE(explained) << file.path;
  }
}

TEST(Sizes, NoPathOfAMachine) {
  std::vector<std::string> roots;
  for (const std::string name : {"home", "root", "work", "opt", "Users"}) roots.push_back("/" + name + "/");
  for (const char* top : {"src", "tests", "bench", "docs", "script", "python", "models"})
    for (const SourceFile& file : sources(top, {".h", ".cpp", ".py", ".txt", ".md", ".cmake", ".toml", ""})) {
      const std::vector<std::string> lines = lines_of(file.text);
      for (size_t i = 0; i < lines.size(); ++i)
        for (const std::string& root : roots) {
          const size_t at = lines[i].find(root);
          const bool begins_a_path = at != std::string::npos && (at == 0 || !(std::isalnum(lines[i][at - 1]) || lines[i][at - 1] == '.'));
          EXPECT_FALSE(begins_a_path) << file.path << ":" << i + 1 << ": " << lines[i];
        }
    }
}

}  // namespace
}  // namespace hadal
