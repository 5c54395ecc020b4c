// A configuration written down is the configuration read back.
#include "model/write_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "made_files.h"
#include "model/gguf.h"
#include "model/presets.h"

namespace hadal::test {
namespace {
namespace fs = std::filesystem;

void expect_same(const ModelConfig& a, const ModelConfig& b, const std::string& name) {
  SCOPED_TRACE(name);
  EXPECT_EQ(std::tie(a.family, a.vocab, a.dim, a.layers, a.heads, a.context, a.norm_eps, a.attention_scale),
            std::tie(b.family, b.vocab, b.dim, b.layers, b.heads, b.context, b.norm_eps, b.attention_scale));
  EXPECT_EQ(a.attention, b.attention);
  EXPECT_EQ(std::tie(a.kv_heads, a.head_dim, a.qkv_bias, a.qk_norm, a.out_bias, a.tied_head, a.ffn_dim),
            std::tie(b.kv_heads, b.head_dim, b.qkv_bias, b.qk_norm, b.out_bias, b.tied_head, b.ffn_dim));
  EXPECT_EQ(std::tie(a.q_rank, a.kv_rank, a.nope_dim, a.rope_dim, a.v_dim), std::tie(b.q_rank, b.kv_rank, b.nope_dim, b.rope_dim, b.v_dim));
  EXPECT_EQ(std::tie(a.indexer.heads, a.indexer.dim, a.indexer.keys), std::tie(b.indexer.heads, b.indexer.dim, b.indexer.keys));
  EXPECT_EQ(a.moe.experts, b.moe.experts);
  if (a.moe.experts > 0) {
    EXPECT_EQ(std::tie(a.moe.active, a.moe.shared, a.moe.expert_dim, a.moe.groups, a.moe.active_groups, a.moe.score, a.moe.group_score,
                       a.moe.bias, a.moe.normalize, a.moe.scale, a.dense_layers, a.moe_every),
              std::tie(b.moe.active, b.moe.shared, b.moe.expert_dim, b.moe.groups, b.moe.active_groups, b.moe.score, b.moe.group_score,
                       b.moe.bias, b.moe.normalize, b.moe.scale, b.dense_layers, b.moe_every));
  }
  EXPECT_EQ(std::tie(a.rope.layout, a.rope.scaling, a.rope.magnitude), std::tie(b.rope.layout, b.rope.scaling, b.rope.magnitude));
  EXPECT_EQ(rope_frequencies(a), rope_frequencies(b));
  EXPECT_EQ(a.begin_token, b.begin_token);
  EXPECT_EQ(a.end_tokens, b.end_tokens);
}

TEST(WriteConfig, EveryPresetAndGoldenModelReadsBack) {
  for (const Preset& p : presets()) expect_same(p.config, parse_config(config_json(p.config, "w4"), "", p.name), p.name);
  int models = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(HADAL_SOURCE) / "tests" / "golden"))
    for (const char* inside : {"model.gguf", "model"})
      if (fs::exists(entry.path() / inside)) {
        const ModelConfig config = ModelSource(entry.path() / inside).config();
        expect_same(config, parse_config(config_json(config, ""), "", "written"), entry.path().string());
        ++models;
      }
  EXPECT_GT(models, 15);
}

TEST(WriteConfig, WhatKeysCannotSayIsRefused) {
  ModelConfig config = preset("coder-1.3b");
  config.qkv_bias = true;  // without one behind the attention, which a llama has too
  EXPECT_THAT(error_of([&] { config_json(config, "w4"); }), testing::HasSubstr("cannot be written as config.json"));
}

TEST(WriteConfig, APublishedFileKeepsItsOtherKeys) {
  const std::string text =
      packed_config_json(R"({"model_type": "deepseek_v3", "quantization_config": {"quant_method": "fp8", "fmt": "e4m3"},
    "num_nextn_predict_layers": 1, "future_key": [1, 2]})",
                         "w4", 0);
  EXPECT_THAT(text,
              testing::AllOf(testing::HasSubstr("future_key"), testing::HasSubstr("\"hadal\""), testing::Not(testing::HasSubstr("fp8"))));
  EXPECT_EQ(parse_config(text, "", "written").draft_layers, 0);
}

TEST(WriteConfig, UnknownPackingsAreRefused) {
  const auto config = [](const std::string& quantization) {
    return R"({"model_type": "llama", "quantization_config": )" + quantization + "}";
  };
  parse_config(config(R"({"quant_method": "hadal", "weights": "w4", "format": 1})"), "", "here");
  EXPECT_THAT(error_of([&] { parse_config(config(R"({"quant_method": "hadal", "format": 2})"), "", "here"); }),
              testing::HasSubstr("format"));
  EXPECT_THAT(error_of([&] { parse_config(config(R"({"quant_method": "gptq"})"), "", "here"); }),
              testing::HasSubstr("expected fp8, hadal or none"));
}

TEST(WriteConfig, ATokenizerOfAGgufFileIsTheSame) {
  const fs::path gguf = fs::path(HADAL_SOURCE) / "tests" / "golden" / "gguf_llama" / "model.gguf";
  const Folder folder;
  const Gguf file(gguf);
  const Gguf alone(folder.write("tokenizer.gguf", file.metadata_alone()));
  EXPECT_EQ(alone.metadata(), file.metadata());
  EXPECT_TRUE(alone.stored().empty());
}

TEST(PackingReport, ReadsBackAndRefusesOtherFiles) {
  const Folder folder;
  EXPECT_TRUE(read_report(folder.path()).source.empty());
  PackingReport report{"here", "w4", {{"a.safetensors", 12, 0xfedc'ba98'7654'3210, {{"attention", {3, 4, 0.5, 2.0}}}}}, true};
  write_report(folder.path(), report);
  const PackingReport back = read_report(folder.path());
  EXPECT_EQ(back.source, "here");
  EXPECT_EQ(back.recipe, "w4");
  EXPECT_TRUE(back.complete);
  ASSERT_EQ(back.shards.size(), 1u);
  EXPECT_EQ(back.shards[0].checksum, report.shards[0].checksum);
  EXPECT_EQ(back.shards[0].parts.at("attention").error, 0.5);
  for (const char* text :
       {"", "[]", "{}", R"({"source": 1, "recipe": "", "complete": true, "shards": []})",
        R"({"source": "", "recipe": "", "complete": true, "shards": [{"file": "a", "bytes": 1, "checksum": "xyz", "parts": {}}]})"}) {
    folder.write("quantization.json", text);
    EXPECT_THAT(error_of([&] { read_report(folder.path()); }), testing::HasSubstr("expected the report of an earlier packing")) << text;
  }
}

}  // namespace
}  // namespace hadal::test
