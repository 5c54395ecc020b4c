#include "cli/progress.h"

#include <gtest/gtest.h>

namespace hadal {
namespace {

using Unit = Progress::Unit;

TEST(Progress, SaysHowFarHowFastAndHowLong) {
  EXPECT_EQ(progress_line("perplexity", "windows", Unit::count, 12, 40, 0, 8, "so far 7.20"),
            "perplexity: 12 of 40 windows, 30 %, 1.50/s, 19 s left, so far 7.20");
  EXPECT_EQ(progress_line("logits", "tokens", Unit::count, 2000, 2000, 0, 2, ""), "logits: 2,000 of 2,000 tokens, 100 %, 1,000/s");
}

TEST(Progress, KnowsNothingOfWhatItWasNotTold) {
  EXPECT_EQ(progress_line("pull", "", Unit::bytes, 5000000, 0, 0, 2, ""), "pull: 5.00 MB, 2.50 MB/s");
  EXPECT_EQ(progress_line("pull", "", Unit::bytes, 0, 10, 0, 3, ""), "pull: 0 B of 10 B, 0 %");
  EXPECT_EQ(progress_line("pull", "", Unit::bytes, 5, 10, 0, 0, ""), "pull: 5 B of 10 B, 50 %");
}

TEST(Progress, WhatWasThereBeforeIsNoSpeed) {
  EXPECT_EQ(progress_line("pull", "", Unit::bytes, 60, 100, 40, 2, ""), "pull: 60 B of 100 B, 60 %, 10 B/s, 4 s left");
}

}  // namespace
}  // namespace hadal
