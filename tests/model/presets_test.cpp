// The published shapes, held against the published parameter totals.
#include "model/presets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.h"

namespace hadal {
namespace {

// Totals of the published weights without multi-token prediction layers, router biases counted. Active: chosen and shared experts, one row
// of the embedding table.
constexpr struct {
  const char* name;
  int64_t total, active;
} published[] = {
    {"llm-7b", 6'910'365'696, 6'490'939'392},
    {"llm-67b", 67'425'001'472, 66'586'148'864},
    {"math-7b", 6'910'365'696, 6'490'939'392},
    {"coder-1.3b", 1'346'471'936, 1'280'413'696},
    {"coder-6.7b", 6'740'512'768, 6'608'396'288},
    {"coder-33b", 33'342'991'360, 33'111'787'520},
    {"coder-7b-v1.5", 6'910'365'696, 6'490'939'392},
    {"moe-16b", 16'375'728'128, 2'618'937'344},
    {"v2-lite", 15'706'484'224, 2'451'437'056},
    {"v2", 235'741'434'880, 20'851'517'440},
    {"v3", 671'026'419'200, 36'625'625'600},
    {"v3.2", 671'877'944'064, 37'477'150'464},
    {"r1-distill-qwen-1.5b", 1'777'088'000, 1'543'715'840},
    {"r1-distill-qwen-7b", 7'615'616'512, 7'070'622'720},
    {"r1-distill-qwen-14b", 14'770'033'664, 13'991'471'104},
    {"r1-distill-qwen-32b", 32'763'876'352, 31'985'313'792},
    {"r1-distill-llama-8b", 8'030'261'248, 7'504'928'768},
    {"r1-distill-llama-70b", 70'553'706'496, 69'503'041'536},
    {"r1-0528-qwen3-8b", 8'190'735'360, 7'568'409'600},
    {"smollm2-135m", 134'515'008, 134'515'008},
    {"article-v1", 1'346'471'936, 1'280'413'696},
    {"article-v2", 21'991'327'232, 453'315'584},
    {"v2-22b", 21'991'327'232, 453'315'584},
    {"article-v3", 67'268'663'808, 10'765'101'568},
};

TEST(Presets, CountWhatWasPublished) {
  std::set<std::string> counted;
  for (const auto& p : published) {
    const ParameterCount count = count_parameters(preset(p.name));
    EXPECT_EQ(count.total, p.total) << p.name;
    EXPECT_EQ(count.active, p.active) << p.name;
    counted.insert(p.name);
  }
  for (const Preset& p : presets()) EXPECT_TRUE(counted.contains(p.name)) << p.name << " has no published total in this test";
}

// The same by hand for one model of each kind, so that a mistake in the list of parameters cannot hide in the table above.
TEST(Presets, CountByHand) {
  const int64_t llama = 2 * 32256 * 2048 + 24 * (4 * 2048 * 2048 + 3 * 2048 * 5504 + 2 * 2048) + 2048;
  EXPECT_EQ(count_parameters(preset("coder-1.3b")).total, llama);

  const int64_t small = 1536 * 8 * 192 + 1536 * 576 + 512 + 512 * 8 * 256 + 8 * 128 * 1536 + 2 * 1536, little = 3 * 1536 * 576;
  const int64_t v2_rest = 2 * 32256 * 1536 + 1536 + 16 * (small + 512 * 1536 + 512 + little);
  EXPECT_EQ(count_parameters(preset("article-v2")).total, v2_rest + int64_t(16) * 512 * little);
  EXPECT_EQ(count_parameters(preset("article-v2")).active, v2_rest + 16 * 6 * little - 32255 * 1536);
  const int64_t latent = 4096 * 1536 + 1536 + 1536 * 32 * 192 + 4096 * 576 + 512 + 512 * 32 * 256 + 32 * 128 * 4096 + 2 * 4096;
  EXPECT_EQ(count_parameters(preset("article-v3")).total,
            2 * 32256 * 4096 + 4096 + 40 * (latent + 64 * 4096 + 64 + int64_t(65) * 3 * 4096 * 2048));

  const int64_t attention = 7168 * 1536 + 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 + 512 * 128 * 256 + 128 * 128 * 7168;
  const int64_t expert = 3 * 7168 * 2048, router = 256 * 7168 + 256;
  const int64_t rest = 2 * 129280 * int64_t(7168) + 7168 + 61 * (attention + 2 * 7168) + 3 * (3 * 7168 * 18432) + 58 * (router + expert);
  EXPECT_EQ(count_parameters(preset("v3")).total, rest + 58 * 256 * expert);
  EXPECT_EQ(count_parameters(preset("v3")).active, rest + 58 * 8 * expert - 129279 * int64_t(7168));
}

TEST(Presets, AnUnknownNameIsAnsweredWithTheKnownOnes) {
  try {
    preset("v9");
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("v9"));
    EXPECT_THAT(e.what(), testing::HasSubstr("v2-lite"));
  }
}

TEST(Presets, SayHowTheModelsAttend) {
  EXPECT_EQ(preset("coder-33b").rope.scaling, RopeScaling::linear);
  EXPECT_EQ(preset("r1-distill-llama-70b").rope.scaling, RopeScaling::llama3);
  EXPECT_FLOAT_EQ(preset("r1-0528-qwen3-8b").rope.magnitude, 1);
  EXPECT_EQ(preset("v2").moe.active_groups, 3);
  EXPECT_EQ(preset("v2").moe.group_score, GroupScore::best);
  EXPECT_EQ(preset("v2-lite").q_rank, 0);
  EXPECT_EQ(preset("v3.2").indexer.keys, 2048);
}

}  // namespace
}  // namespace hadal
