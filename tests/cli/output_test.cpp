#include "cli/output.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace hadal {
namespace {

TEST(Output, CommasStandBetweenThousands) {
  EXPECT_EQ(with_commas(0), "0");
  EXPECT_EQ(with_commas(999), "999");
  EXPECT_EQ(with_commas(1000), "1,000");
  EXPECT_EQ(with_commas(671026419200), "671,026,419,200");
  EXPECT_EQ(with_commas(-999), "-999");
  EXPECT_EQ(with_commas(-1000), "-1,000");
  EXPECT_EQ(with_commas(std::numeric_limits<int64_t>::min()), "-9,223,372,036,854,775,808");
}

TEST(Output, BytesHaveThreeDigits) {
  EXPECT_EQ(as_bytes(0), "0 B");
  EXPECT_EQ(as_bytes(999), "999 B");
  EXPECT_EQ(as_bytes(1000), "1.00 kB");
  EXPECT_EQ(as_bytes(98362432), "98.4 MB");
  EXPECT_EQ(as_bytes(999.6e6), "1.00 GB");
  EXPECT_EQ(as_bytes(688.6e9), "689 GB");
  EXPECT_EQ(as_bytes(5e15), "5000 TB");
}

TEST(Output, TimesAndRates) {
  EXPECT_EQ(as_time(0.4), "0 s");
  EXPECT_EQ(as_time(59.6), "1:00");
  EXPECT_EQ(as_time(125), "2:05");
  EXPECT_EQ(as_time(3723), "1:02:03");
  EXPECT_EQ(as_time(-1), "0 s");
  EXPECT_EQ(as_rate(0.1234), "0.123");
  EXPECT_EQ(as_rate(9.876), "9.88");
  EXPECT_EQ(as_rate(98.76), "98.8");
  EXPECT_EQ(as_rate(1234.4), "1,234");
  EXPECT_EQ(as_rate(std::numeric_limits<double>::infinity()), "-");
  EXPECT_EQ(as_rate(std::nan("")), "-");
}

TEST(Output, QuotesShowEveryByte) {
  EXPECT_EQ(in_quotes(""), "\"\"");
  EXPECT_EQ(in_quotes("a\n\t\"\\"), R"("a\n\t\"\\")");
  EXPECT_EQ(in_quotes("é你😀"), "\"é你😀\"");
  EXPECT_EQ(in_quotes(std::string("\x01\x7f\x00", 3)), R"("\x01\x7f\x00")");
  EXPECT_EQ(in_quotes("\xe4\xbd"), R"("\xe4\xbd")");                  // a character cut off
  EXPECT_EQ(in_quotes("\xc0\x80"), R"("\xc0\x80")");                  // overlong
  EXPECT_EQ(in_quotes("\xed\xa0\x80"), R"("\xed\xa0\x80")");          // a surrogate
  EXPECT_EQ(in_quotes("\xf4\x90\x80\x80"), R"("\xf4\x90\x80\x80")");  // beyond U+10FFFF
  EXPECT_EQ(in_quotes("\xff"
                      "a"),
            R"("\xffa")");
}

TEST(Output, TableLinesUp) {
  EXPECT_EQ(table({{"name", "n"}, {"é", "1,000"}, {"long name", ""}}, "lr"),
            "name           n\n"
            "é          1,000\n"
            "long name\n");
  EXPECT_EQ(table({}, "lr"), "");
}

}  // namespace
}  // namespace hadal
