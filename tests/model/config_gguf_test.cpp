// GGUF metadata into numbers: every architecture, the places where the format says less than config.json, and the refusals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "made_files.h"
#include "model/config.h"
#include "model/gguf.h"

namespace hadal::test {
namespace {
using testing::ElementsAre;
using testing::HasSubstr;

struct Metadata {  // of one architecture; keys are written without its name, except in `tokens`
  std::string architecture;
  std::map<std::string, int64_t> integers;
  std::map<std::string, float> reals;
  std::map<std::string, std::string> words;
  std::map<std::string, uint32_t> tokens;
  std::map<std::string, std::vector<uint64_t>> tensors;  // F32, sides innermost first, filled with ones

  std::string file() const {
    Bytes keys, entries, data;
    const auto named = [](Bytes& to, const std::string& name) -> Bytes& { return to.put(uint64_t(name.size())).put_text(name); };
    named(named(keys, "general.architecture").put(8u), architecture);
    for (const auto& [key, value] : integers) named(keys, architecture + "." + key).put(11u).put(value);
    for (const auto& [key, value] : reals) named(keys, architecture + "." + key).put(6u).put(value);
    for (const auto& [key, value] : words) named(named(keys, architecture + "." + key).put(8u), value);
    for (const auto& [key, value] : tokens) named(keys, "tokenizer.ggml." + key).put(4u).put(value);
    for (const auto& [name, sides] : tensors) {
      data.pad_to(32);
      named(entries, name).put(uint32_t(sides.size()));
      uint64_t count = 1;
      for (const uint64_t side : sides) entries.put(side), count *= side;
      entries.put(0u).put(uint64_t(data.text.size()));
      data.put_text(floats(std::vector<float>(count, 1)));
    }
    const size_t all = 1 + integers.size() + reals.size() + words.size() + tokens.size();
    return Bytes()
        .put_text("GGUF")
        .put(3u)
        .put(uint64_t(tensors.size()))
        .put(uint64_t(all))
        .put_text(keys.text + entries.text)
        .pad_to(32)
        .put_text(data.text)
        .text;
  }
  ModelConfig config() const {
    const auto owned = std::make_shared<const std::string>(file());
    return config_of(Gguf(owned, view_of(*owned), "x.gguf"));
  }
  std::string refusal() const {
    return error_of([&] { config(); });
  }
};

Metadata dense(const std::string& architecture) {
  Metadata m{.architecture = architecture, .integers = {}, .reals = {}, .words = {}, .tokens = {}, .tensors = {}};
  m.integers = {{"embedding_length", 12},       {"block_count", 2},     {"attention.head_count", 3},
                {"attention.head_count_kv", 1}, {"context_length", 99}, {"feed_forward_length", 20}};
  m.reals = {{"attention.layer_norm_rms_epsilon", 1e-5f}, {"rope.freq_base", 100}};
  m.tensors = {{"token_embd.weight", {12, 7}}};
  return m;
}

Metadata latent() {  // as converters write V3 today: the latent's own sizes, and those of a head as *_mla
  Metadata m = dense("deepseek2");
  for (const auto& [key, value] : std::map<std::string, int64_t>{{"attention.head_count_kv", 1},
                                                                 {"attention.q_lora_rank", 8},
                                                                 {"attention.kv_lora_rank", 16},
                                                                 {"attention.key_length", 20},
                                                                 {"attention.value_length", 16},
                                                                 {"attention.key_length_mla", 10},
                                                                 {"attention.value_length_mla", 5},
                                                                 {"rope.dimension_count", 4},
                                                                 {"leading_dense_block_count", 1},
                                                                 {"expert_count", 8},
                                                                 {"expert_used_count", 3},
                                                                 {"expert_shared_count", 1},
                                                                 {"expert_feed_forward_length", 6},
                                                                 {"expert_gating_func", 2},
                                                                 {"expert_group_count", 4},
                                                                 {"expert_group_used_count", 2}})
    m.integers[key] = value;
  m.reals["expert_weights_scale"] = 2.5f;
  m.tensors["blk.1.exp_probs_b.bias"] = {8};
  m.tensors["output.weight"] = {12, 7};
  return m;
}

TEST(ConfigGguf, Llama) {
  Metadata m = dense("llama");
  m.tokens = {{"bos_token_id", 1}, {"eos_token_id", 2}, {"eot_token_id", 5}, {"eom_token_id", 2}};
  const ModelConfig c = m.config();
  EXPECT_EQ(c.family, "llama");
  EXPECT_EQ(c.vocab, 7) << "the embedding's rows, whatever the tokenizer has";
  EXPECT_EQ(c.dim, 12);
  EXPECT_EQ(c.layers, 2);
  EXPECT_EQ(c.kv_heads, 1);
  EXPECT_EQ(c.head_dim, 4);
  EXPECT_EQ(c.ffn_dim, 20);
  EXPECT_EQ(c.context, 99);
  EXPECT_FLOAT_EQ(c.norm_eps, 1e-5f);
  EXPECT_FLOAT_EQ(c.rope.theta, 100);
  EXPECT_EQ(c.rope.layout, RopeLayout::pairs) << "converters of llama permute q and k";
  EXPECT_TRUE(c.tied_head) << "no output.weight";
  EXPECT_EQ(c.begin_token, 1);
  EXPECT_THAT(c.end_tokens, ElementsAre(2, 5));
  m.tensors["output.weight"] = {12, 7};
  EXPECT_FALSE(m.config().tied_head);
}

TEST(ConfigGguf, QwensHaveHalvesAndWhatTheirTensorsShow) {
  Metadata m = dense("qwen2");
  m.tensors["blk.0.attn_q.bias"] = {12};
  EXPECT_EQ(m.config().rope.layout, RopeLayout::halves);
  EXPECT_TRUE(m.config().qkv_bias);
  EXPECT_FALSE(m.config().out_bias || m.config().qk_norm);
  m = dense("qwen3");
  m.integers["attention.key_length"] = m.integers["attention.value_length"] = 6;
  m.tensors["blk.0.attn_q_norm.weight"] = {6};
  EXPECT_EQ(m.config().head_dim, 6);
  EXPECT_TRUE(m.config().qk_norm);
}

TEST(ConfigGguf, LatentAttentionInBothForms) {
  const ModelConfig c = latent().config();
  EXPECT_EQ(c.family, "deepseek_v3");
  EXPECT_EQ(c.attention, AttentionKind::mla);
  EXPECT_EQ(c.q_rank, 8);
  EXPECT_EQ(c.kv_rank, 16);
  EXPECT_EQ(c.nope_dim, 6);
  EXPECT_EQ(c.rope_dim, 4);
  EXPECT_EQ(c.v_dim, 5);
  EXPECT_EQ(c.rope.layout, RopeLayout::pairs);
  Metadata old = latent();
  old.integers.erase("attention.key_length_mla");
  old.integers.erase("attention.value_length_mla");
  old.integers["attention.key_length"] = 10;
  old.integers["attention.value_length"] = 5;
  EXPECT_EQ(old.config().nope_dim, 6);
  EXPECT_EQ(old.config().v_dim, 5);
}

TEST(ConfigGguf, Routing) {
  Metadata m = latent();
  const ModelConfig v3 = m.config();
  EXPECT_EQ(v3.moe.score, RouterScore::sigmoid);
  EXPECT_TRUE(v3.moe.bias);
  EXPECT_EQ(v3.moe.group_score, GroupScore::top2_sum);
  EXPECT_EQ(v3.moe.groups, 4);
  EXPECT_EQ(v3.moe.active_groups, 2);
  EXPECT_FLOAT_EQ(v3.moe.scale, 2.5f);
  EXPECT_FALSE(v3.moe.normalize);
  EXPECT_EQ(v3.dense_layers, 1);

  for (const char* key : {"expert_gating_func", "expert_group_count", "expert_group_used_count"}) m.integers.erase(key);
  m.tensors.erase("blk.1.exp_probs_b.bias");
  m.reals["expert_weights_scale"] = 0;
  const ModelConfig v2 = m.config();
  EXPECT_EQ(v2.family, "deepseek_v2");
  EXPECT_EQ(v2.moe.score, RouterScore::softmax) << "files older than the key";
  EXPECT_FALSE(v2.moe.bias);
  EXPECT_EQ(v2.moe.groups, 1);
  EXPECT_FLOAT_EQ(v2.moe.scale, 1) << "0 stands for none";
}

TEST(ConfigGguf, DraftLayersAreCountedAsBlocksByNewConverters) {
  Metadata m = latent();
  m.integers["block_count"] = 3;
  m.tensors["blk.2.nextn.eh_proj.weight"] = {24, 12};
  EXPECT_EQ(m.config().layers, 2);
  EXPECT_EQ(m.config().draft_layers, 1);
}

TEST(ConfigGguf, Yarn) {
  Metadata m = latent();
  m.words["rope.scaling.type"] = "yarn";
  m.reals["rope.scaling.factor"] = 40;
  m.integers["rope.scaling.original_context_length"] = 4096;
  m.reals["rope.scaling.yarn_log_multiplier"] = 0.1f;
  const ModelConfig c = m.config();
  EXPECT_EQ(c.rope.original_context, 4096);
  EXPECT_NEAR(c.attention_scale * std::sqrt(10.0), 1.873854, 2e-6) << "the same m^2 as from config.json";
  EXPECT_FLOAT_EQ(c.rope.magnitude, 1);
  m.reals["rope.scaling.yarn_log_multiplier"] = 0.0707f;
  EXPECT_NEAR(m.config().attention_scale * std::sqrt(10.0), 1.589626, 2e-6);

  Metadata qwen = dense("qwen3");
  qwen.words["rope.scaling.type"] = "yarn";
  qwen.reals["rope.scaling.factor"] = 4;
  EXPECT_FLOAT_EQ(qwen.config().rope.magnitude, float(0.1 * std::log(4.0) + 1));
  EXPECT_EQ(qwen.config().rope.original_context, 99) << "the context where the file does not say";
  qwen.reals["rope.scaling.yarn_attn_factor"] = 0.8782488562869419f;
  EXPECT_FLOAT_EQ(qwen.config().rope.magnitude, 1);
}

TEST(ConfigGguf, OtherScalings) {
  Metadata m = dense("llama");
  m.words["rope.scaling.type"] = "linear";
  m.reals["rope.scaling.factor"] = 4;
  EXPECT_EQ(m.config().rope.scaling, RopeScaling::linear);
  EXPECT_FLOAT_EQ(rope_frequencies(m.config())[0], 0.25f);
  m = dense("llama");
  m.reals["rope.scale_linear"] = 4;
  EXPECT_FLOAT_EQ(rope_frequencies(m.config())[0], 0.25f) << "the key of old files";
  m = dense("llama");
  m.tensors["rope_freqs.weight"] = {2};
  EXPECT_EQ(m.config().rope.scaling, RopeScaling::table);
  EXPECT_EQ(rope_frequencies(m.config()), rope_frequencies(dense("llama").config())) << "divisors of 1";
}

TEST(ConfigGguf, Refusals) {
  const auto with = [](Metadata m, const std::string& key, int64_t value) {
    m.integers[key] = value;
    return m;
  };
  const auto without = [](Metadata m, const std::string& key) {
    m.integers.erase(key);
    return m;
  };
  EXPECT_THAT(dense("gemma").refusal(),
              HasSubstr("x.gguf: general.architecture: expected one of llama, qwen2, qwen3, deepseek, deepseek2, found \"gemma\""));
  EXPECT_THAT(with(dense("llama"), "expert_count", 8).refusal(), HasSubstr("llama.expert_count"));
  EXPECT_THAT(with(dense("llama"), "block_count", 0).refusal(), HasSubstr("llama.block_count: expected a whole number from 1 to"));
  EXPECT_THAT(with(dense("llama"), "block_count", int64_t(1) << 40).refusal(), HasSubstr("llama.block_count"));
  EXPECT_THAT(without(dense("llama"), "block_count").refusal(), HasSubstr("llama.block_count"));
  EXPECT_THAT(with(dense("llama"), "attention.head_count_kv", 2).refusal(),
              HasSubstr("num_key_value_heads: expected a divisor of num_attention_heads (3), found 2"));
  EXPECT_THAT(with(dense("llama"), "rope.dimension_count", 2).refusal(),
              HasSubstr("llama.rope.dimension_count: expected the width of a head (4), found 2"));
  EXPECT_THAT(with(dense("llama"), "embedding_length", 13).refusal(), HasSubstr("token_embd.weight"));
  EXPECT_THAT(with(dense("qwen2"), "attention.sliding_window", 64).refusal(), HasSubstr("qwen2.attention.sliding_window"));
  EXPECT_THAT(with(latent(), "expert_gating_func", 3).refusal(),
              HasSubstr("deepseek2.expert_gating_func: expected 1 (softmax) or 2 (sigmoid), found 3"));
  EXPECT_THAT(with(latent(), "attention.key_length_mla", 4).refusal(),
              HasSubstr("attention.key_length_mla: expected more than rope.dimension_count (4)"));
  EXPECT_THAT(with(latent(), "expert_used_count", 9).refusal(), HasSubstr("num_experts_per_tok"));
  EXPECT_THAT(without(latent(), "attention.kv_lora_rank").refusal(), HasSubstr("deepseek2.attention.kv_lora_rank"));

  Metadata m = dense("llama");
  m.tensors.erase("token_embd.weight");
  EXPECT_THAT(m.refusal(), HasSubstr("token_embd.weight"));
  m = dense("llama");
  m.words["rope.scaling.type"] = "longrope";
  EXPECT_THAT(m.refusal(), HasSubstr("llama.rope.scaling.type: expected none, linear or yarn, found longrope"));
  m.words["rope.scaling.type"] = "linear";
  m.tensors["rope_freqs.weight"] = {2};
  EXPECT_THAT(m.refusal(), HasSubstr("rope_freqs.weight: expected no rope.scaling beside it"));
  m = dense("llama");
  m.tensors["rope_freqs.weight"] = {3};
  EXPECT_THAT(m.refusal(), HasSubstr("rope_freqs.weight: expected 2 F32 values"));
  m = dense("llama");
  m.reals["rope.freq_base"] = -1;
  EXPECT_THAT(m.refusal(), HasSubstr("llama.rope.freq_base"));
  m.reals["rope.freq_base"] = NAN;
  EXPECT_THAT(m.refusal(), HasSubstr("llama.rope.freq_base"));
}

}  // namespace
}  // namespace hadal::test
