// The probe says what the system says, and its measurements are possible ones.
#include "plan/machine.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/error.h"
#include "core/memory.h"
#include "core/pool.h"

namespace hadal {
namespace {

TEST(Machine, WithoutMeasuringItOnlyReads) {
  const Machine m = probe_machine(false);
  EXPECT_FALSE(m.cpu.empty());
  EXPECT_EQ(m.cores, int(usable_cores().size()));
  EXPECT_EQ(m.threads, pool().threads());
  EXPECT_EQ(m.memory, physical_memory());
  EXPECT_LE(m.available, m.memory);
  ASSERT_EQ(m.levels.size(), 5u);
  EXPECT_TRUE(m.levels[0].usable) << "scalar runs everywhere";
  int used = 0;
  for (const IsaLevel& level : m.levels) {
    EXPECT_TRUE(level.usable || !level.used) << level.name;
    EXPECT_EQ(level.used, level.name == m.isa);
    used += level.used;
  }
  EXPECT_EQ(used, 1);
  EXPECT_EQ(m.read_one + m.read_all + m.flops_one + m.flops_all + m.ops_one + m.ops_all, 0);
}

TEST(Machine, Measures) {
  const Machine m = probe_machine(true);
  for (const double bandwidth : {m.read_one, m.read_all}) {
    EXPECT_GT(bandwidth, 1e8);
    EXPECT_LT(bandwidth, 1e13);
  }
  EXPECT_GT(m.flops_one, 1e8);
  EXPECT_LT(m.flops_all, 1e10 * 64 * 2 * m.threads) << "more than two of the widest units at 10 GHz";
  EXPECT_GT(m.ops_one, 1e8);
  EXPECT_LT(m.ops_all, 1e13 * m.threads);
  for (const IsaLevel& level : m.levels) {
    EXPECT_EQ(level.flops_one > 0, level.usable) << level.name;
    EXPECT_EQ(level.ops_one > 0, level.usable) << level.name;
  }
}

TEST(Machine, TheBestOfTwoMeasurements) {
  Machine a, b;
  a.read_all = 5, a.ops_all = 1, a.flops_one = 2;
  b.read_all = 3, b.ops_all = 7, b.flops_one = 2;
  keep_best(a, b);
  EXPECT_EQ(a.read_all, 5);
  EXPECT_EQ(a.ops_all, 7);
  EXPECT_EQ(a.flops_one, 2);
}

TEST(Machine, AnUnknownLevelIsReported) {
  const char* original = std::getenv("HADAL_ISA");
  const std::string kept = original ? original : "";
  ::setenv("HADAL_ISA", "mmx", 1);
  try {
    check_isa_wish();
    ADD_FAILURE() << "accepted";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "HADAL_ISA: expected scalar, avx2, avx512, vnni or amx, found \"mmx\"");
  }
  ::setenv("HADAL_ISA", "scalar", 1);
  EXPECT_NO_THROW(check_isa_wish());
  original ? ::setenv("HADAL_ISA", kept.c_str(), 1) : ::unsetenv("HADAL_ISA");
}

}  // namespace
}  // namespace hadal
