// An object compiled for an instruction set must not share code with the rest: an inline function of it, chosen by the linker for the
// whole program, would stop older machines. So each defines one external symbol, its fill function.
#include <gtest/gtest.h>

#include <cstdio>
#include <sstream>

#include "sources.h"

namespace hadal {
namespace {

TEST(Symbols, OneExternalSymbolPerInstructionSet) {
#ifndef HADAL_KERNEL_OBJECTS
  GTEST_SKIP() << "a sanitizer adds symbols of its own";
#else
  std::stringstream objects(HADAL_KERNEL_OBJECTS);
  int levels = 0;
  for (std::string object; std::getline(objects, object, ':');) {
    const std::filesystem::path path(object);  // LEVEL/LEVEL.cpp.o defines fill_LEVEL, LEVEL/PART.cpp.o fill_LEVEL_PART
    const std::string level = path.parent_path().filename().string(), part = path.stem().stem().string();
    if (level != "avx2" && level != "avx512" && level != "vnni" && level != "amx" && level != "bf16") continue;
    const std::string expected = "hadal::fill_" + level + (part == level ? "" : "_" + part) + "(";
    ++levels;
    const std::string command = std::string(HADAL_NM) + " --extern-only --defined-only --demangle --format=posix '" + object + "'";
    FILE* pipe = ::popen(command.c_str(), "r");
    ASSERT_NE(pipe, nullptr) << command;
    std::string text;
    for (char piece[4096]; std::fgets(piece, sizeof piece, pipe);) text += piece;
    ASSERT_EQ(::pclose(pipe), 0) << command;
    for (const std::string& line : lines_of(text)) EXPECT_TRUE(line.starts_with(expected)) << object << ": defines " << line;
    EXPECT_FALSE(text.empty()) << object << ": expected " << expected;
  }
  EXPECT_GE(levels, 2) << HADAL_KERNEL_OBJECTS;
#endif
}

}  // namespace
}  // namespace hadal
