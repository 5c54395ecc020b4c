// config.json into numbers: what each family's file means, what it falls back to, and which files are refused.
#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "core/error.h"

namespace hadal {
namespace {
using testing::ElementsAre;
using testing::HasSubstr;

ModelConfig parse(const std::string& json, const std::string& generation = "") {
  return parse_config(json, generation, "folder/config.json");
}

std::string refusal(const std::string& json, const std::string& generation = "") {
  try {
    parse(json, generation);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

std::string of(const char* family, const std::string& more) {
  return std::string("{\"model_type\": \"") + family + "\"" + (more.empty() ? "" : ", " + more) + "}";
}

TEST(Config, FallsBackToWhatEachFamilysCodeTakes) {
  const ModelConfig llama = parse(of("llama", ""));
  EXPECT_EQ(llama.vocab, 32000);
  EXPECT_EQ(llama.kv_heads, 32);
  EXPECT_EQ(llama.head_dim, 128);
  EXPECT_EQ(llama.context, 2048);
  EXPECT_FLOAT_EQ(llama.rope.theta, 10000);
  EXPECT_FLOAT_EQ(llama.attention_scale, 1 / std::sqrt(128.0f));
  EXPECT_FALSE(llama.qkv_bias || llama.out_bias || llama.qk_norm || llama.tied_head);
  EXPECT_EQ(llama.begin_token, 1);
  EXPECT_THAT(llama.end_tokens, ElementsAre(2));

  EXPECT_EQ(parse(of("qwen2", "")).ffn_dim, 22016);
  EXPECT_TRUE(parse(of("qwen2", "")).qkv_bias);
  EXPECT_FALSE(parse(of("qwen2", "")).out_bias);
  EXPECT_TRUE(parse(of("qwen3", "")).qk_norm);
  EXPECT_EQ(parse(of("qwen3", "\"hidden_size\": 100, \"num_attention_heads\": 3, \"num_key_value_heads\": 1")).head_dim, 128);

  const ModelConfig v2 = parse(of("deepseek_v2", ""));
  EXPECT_EQ(v2.attention, AttentionKind::mla);
  EXPECT_EQ(v2.layers, 30);
  EXPECT_EQ(v2.q_rank, 1536);
  EXPECT_EQ(v2.kv_rank, 512);
  EXPECT_EQ(v2.q_dim(), 192);
  EXPECT_EQ(v2.kv_width(), 576);
  EXPECT_EQ(v2.rotated_dim(), 64);
  EXPECT_EQ(v2.rope.layout, RopeLayout::pairs);
  EXPECT_EQ(v2.moe.experts, 0) << "experts are absent in the published code's defaults";

  const ModelConfig v3 = parse(of("deepseek_v3", ""));
  EXPECT_EQ(v3.layers, 61);
  EXPECT_EQ(v3.draft_layers, 1);
  EXPECT_EQ(v3.moe.experts, 256);
  EXPECT_EQ(v3.moe.active, 8);
  EXPECT_EQ(v3.moe.groups, 8);
  EXPECT_EQ(v3.moe.active_groups, 4);
  EXPECT_EQ(v3.moe.score, RouterScore::sigmoid);
  EXPECT_EQ(v3.moe.group_score, GroupScore::top2_sum);
  EXPECT_TRUE(v3.moe.bias && v3.moe.normalize);
  EXPECT_FLOAT_EQ(v3.moe.scale, 2.5f);
  EXPECT_FALSE(v3.is_moe(2));
  EXPECT_TRUE(v3.is_moe(3));
  EXPECT_EQ(v3.indexer.heads, 0);

  const ModelConfig v32 = parse(of("deepseek_v32", ""));
  EXPECT_EQ(v32.indexer.heads, 64);
  EXPECT_EQ(v32.indexer.keys, 2048);
  EXPECT_EQ(v32.kv_width(), 576 + 128);
  EXPECT_EQ(v32.context, 163840);
}

// VL2-27B's language part leans on the defaults: layers, heads and every latent width.
TEST(Config, FillsTheGapsOfASparseFile) {
  const ModelConfig c = parse(of("deepseek_v2", R"("hidden_size": 2560, "intermediate_size": 12288, "moe_intermediate_size": 1536,
    "n_routed_experts": 72, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
    "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": true, "routed_scaling_factor": 2.0, "q_lora_rank": null)"));
  EXPECT_EQ(c.layers, 30);
  EXPECT_EQ(c.heads, 32);
  EXPECT_EQ(c.q_rank, 0) << "an explicit null is no fallback";
  EXPECT_EQ(c.nope_dim, 128);
  EXPECT_TRUE(c.moe.bias && c.moe.normalize);
  EXPECT_EQ(c.moe.score, RouterScore::sigmoid);
}

TEST(Config, PlainAttentionWhereLatentAttentionIsSwitchedOff) {
  const ModelConfig c = parse(of("deepseek_v2", R"("use_mla": false, "hidden_size": 1280, "num_attention_heads": 10, "qk_nope_head_dim": 0,
    "qk_rope_head_dim": 0, "v_head_dim": 0, "kv_lora_rank": null, "q_lora_rank": null)"));
  EXPECT_EQ(c.attention, AttentionKind::gqa);
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_EQ(c.kv_heads, 10);
  EXPECT_EQ(c.rope.layout, RopeLayout::halves);
}

TEST(Config, Routers) {
  const std::string experts = R"("n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2, )";
  for (const char* greedy : {"greedy", "gready"}) {
    const ModelConfig c = parse(of("deepseek_v2", experts + R"("topk_method": ")" + greedy + '"'));
    EXPECT_EQ(c.moe.groups, 1) << "greedy ignores groups";
    EXPECT_FALSE(c.moe.bias);
  }
  const ModelConfig limited = parse(of("deepseek_v2", experts + R"("topk_method": "group_limited_greedy", "n_shared_experts": null)"));
  EXPECT_EQ(limited.moe.groups, 4);
  EXPECT_EQ(limited.moe.active_groups, 2);
  EXPECT_EQ(limited.moe.group_score, GroupScore::best);
  EXPECT_EQ(limited.moe.shared, 0);
  EXPECT_EQ(parse(of("deepseek_v3", experts + R"("n_group": null, "topk_group": null)")).moe.groups, 1);
  EXPECT_EQ(parse(of("deepseek_v3", R"("n_routed_experts": null)")).moe.experts, 0);
  EXPECT_FALSE(parse(of("deepseek_v3", R"("num_experts_per_tok": 1, "topk_group": 1)")).moe.normalize)
      << "one expert has nothing to share with";

  const ModelConfig every =
      parse(of("deepseek", R"("n_routed_experts": 4, "num_experts_per_tok": 1, "moe_layer_freq": 2, "first_k_dense_replace": 1)"));
  EXPECT_FALSE(every.is_moe(1));
  EXPECT_TRUE(every.is_moe(2));
  EXPECT_FALSE(every.is_moe(3));

  const std::string types = R"("num_hidden_layers": 3, "first_k_dense_replace": 0, "mlp_layer_types": )";
  EXPECT_EQ(parse(of("deepseek_v32", types + R"(["dense", "dense", "sparse"])")).dense_layers, 2);
  EXPECT_EQ(parse(of("deepseek_v32", types + R"(["dense", "dense", "dense"])")).dense_layers, 3);
  EXPECT_THAT(refusal(of("deepseek_v32", types + R"(["dense", "sparse", "dense"])")), HasSubstr("mlp_layer_types"));
}

// families: qk width^-0.5 times m^2, m = 0.1 a ln 40 + 1 = 1.260804 (a = 0.707) and 1.368888 (a = 1); cos and sin keep their size.
TEST(Config, YarnScalesTheSoftmaxOfLatentAttention) {
  const auto yarn = [](const char* a) {
    return std::string(R"("rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "mscale": )") + a +
           R"(, "mscale_all_dim": )" + a + "}";
  };
  const ModelConfig v2 = parse(of("deepseek_v2", yarn("0.707"))), v3 = parse(of("deepseek_v3", yarn("1.0")));
  EXPECT_NEAR(v2.attention_scale * std::sqrt(192.0), 1.589626, 2e-6);
  EXPECT_NEAR(v3.attention_scale * std::sqrt(192.0), 1.873854, 2e-6);
  EXPECT_EQ(v2.rope.magnitude, 1);
  EXPECT_EQ(v3.rope.magnitude, 1);
  const ModelConfig plain = parse(of("deepseek_v2", R"("rope_scaling": null)"));
  EXPECT_FLOAT_EQ(plain.attention_scale, 1 / std::sqrt(192.0f)) << "no YaRN, no factor";
}

TEST(Config, YarnMagnitudeWithoutLatentAttention) {
  const std::string yarn = R"("rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768)";
  const float m = float(0.1 * std::log(4.0) + 1);
  EXPECT_FLOAT_EQ(parse(of("qwen3", yarn + "}")).rope.magnitude, m);
  EXPECT_FLOAT_EQ(parse(of("qwen3", yarn + R"(, "attention_factor": 1.5})")).rope.magnitude, 1.5f);
  EXPECT_FLOAT_EQ(parse(of("qwen3", yarn + R"(, "attn_factor": 0.8782488562869419})")).rope.magnitude, 1) << "R1-0528-Qwen3-8B";
  EXPECT_FLOAT_EQ(parse(of("qwen3", yarn + R"(, "mscale": 2, "mscale_all_dim": 1})")).rope.magnitude, float((0.2 * std::log(4.0) + 1) / m));
  EXPECT_FLOAT_EQ(parse(of("qwen3", yarn + R"(, "mscale": 2, "mscale_all_dim": 1})")).attention_scale, 1 / std::sqrt(128.0f));
}

TEST(Config, OldAndNewFormsOfRopeSayTheSame) {
  const ModelConfig old_form = parse(of("llama", R"("rope_theta": 100000, "rope_scaling": {"type": "linear", "factor": 4.0})"));
  const ModelConfig new_form = parse(of("llama", R"("rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100000.0})"));
  EXPECT_EQ(old_form.rope.scaling, RopeScaling::linear);
  EXPECT_EQ(rope_frequencies(old_form), rope_frequencies(new_form));
  EXPECT_EQ(parse(of("llama", R"("rope_parameters": {"rope_type": "default", "rope_theta": 7.0})")).rope.theta, 7);
  EXPECT_EQ(parse(of("llama", R"("rope_theta": 7.0, "rope_scaling": {"type": "default"})")).rope.theta, 7);
  EXPECT_EQ(parse(of("deepseek_v3", R"("rope_interleave": false)")).rope.layout, RopeLayout::halves);
}

// Values of transformers 5.24.0, ROPE_INIT_FUNCTIONS[rope_type](config), single precision on a CPU.
TEST(Config, FrequenciesAreThoseOfTheReference) {
  struct Case {
    std::string json;
    float magnitude;
    std::vector<std::pair<size_t, float>> expected;
  };
  const std::vector<Case> cases = {
      {of("deepseek_v3", R"("rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "mscale": 1.0,
          "mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1})"),
       1,
       {{0, 1},
        {1, 0.749894202f},
        {10, 0.0562341288f},
        {12, 0.0268793609f},
        {16, 0.00550000044f},
        {20, 0.000790569407f},
        {31, 3.33380353e-06f}}},
      {of("deepseek_v3", R"("qk_rope_head_dim": 10, "rope_scaling": {"type": "yarn", "factor": 7, "original_max_position_embeddings": 100,
          "mscale": 1.0, "mscale_all_dim": 0.5})"),
       1.0886684642304105f,
       {{0, 1}, {1, 0.0905653238f}, {2, 0.00358840916f}, {3, 0.000568724412f}, {4, 9.01367603e-05f}}},
      {of("llama", R"("rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192})"),
       1,
       {{0, 1},
        {1, 0.814617217f},
        {20, 0.0165604409f},
        {28, 0.00321144611f},
        {32, 0.000524846022f},
        {36, 7.78465546e-05f},
        {63, 3.06892588e-07f}}},
      {of("llama", R"("rope_theta": 100000, "rope_scaling": {"type": "linear", "factor": 4.0})"),
       1,
       {{0, 0.25f}, {1, 0.208840638f}, {20, 0.00684604887f}, {32, 0.000790569466f}, {63, 2.99271255e-06f}}},
      {of("qwen3",
          R"("rope_theta": 1000000, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768})"),
       1.138629436111989f,
       {{0, 1},
        {1, 0.805842221f},
        {20, 0.0133352149f},
        {28, 0.00184827659f},
        {32, 0.000602941145f},
        {36, 0.000179841154f},
        {63, 3.10234441e-07f}}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.json);
    const ModelConfig config = parse(c.json);
    EXPECT_FLOAT_EQ(config.rope.magnitude, c.magnitude);
    const std::vector<float> found = rope_frequencies(config);
    ASSERT_EQ(int64_t(found.size()), config.rotated_dim() / 2);
    for (const auto& [i, expected] : c.expected) EXPECT_NEAR(found[i], expected, expected * 1.2e-7) << "pair " << i;
  }
}

TEST(Config, EndTokensOfBothFilesTogether) {
  EXPECT_THAT(parse(of("llama", R"("eos_token_id": [7, 9])"), R"({"eos_token_id": 8})").end_tokens, ElementsAre(7, 9, 8));
  EXPECT_THAT(parse(of("llama", R"("eos_token_id": 7)"), R"({"eos_token_id": [7, 32021]})").end_tokens, ElementsAre(7, 32021));
  EXPECT_THAT(parse(of("llama", R"("eos_token_id": null, "bos_token_id": null)"), "{}").end_tokens, ElementsAre());
  EXPECT_EQ(parse(of("llama", R"("bos_token_id": null)")).begin_token, -1);
  EXPECT_THAT(refusal(of("llama", ""), R"({"eos_token_id": "x"})"), HasSubstr("folder/generation_config.json: eos_token_id"));
}

TEST(Config, Fp8Blocks) {
  const ModelConfig c =
      parse(of("deepseek_v3", R"("quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [64, 32],
    "activation_scheme": "dynamic"})"));
  EXPECT_EQ(c.fp8.block_rows, 64);
  EXPECT_EQ(c.fp8.block_cols, 32);
  EXPECT_EQ(parse(of("deepseek_v3", "")).fp8.block_rows, 128);
}

TEST(Config, AttentionBias) {
  const ModelConfig c = parse(of("llama", R"("attention_bias": true)"));
  EXPECT_TRUE(c.qkv_bias && c.out_bias);
  EXPECT_FALSE(parse(of("qwen2", R"("attention_bias": true)")).out_bias) << "qwen2's code does not read the key";
}

TEST(Config, IgnoresWhatDoesNotChangeTheNumbers) {
  const ModelConfig c =
      parse(of("qwen2", R"("pretraining_tp": 4, "ep_size": 8, "torch_dtype": "bfloat16", "dtype": "float32", "sliding_window": 4096,
    "max_window_layers": 21, "use_sliding_window": false, "layer_types": ["full_attention"], "unheard_of": {"a": [1, 2]})"));
  EXPECT_EQ(c.family, "qwen2");
}

TEST(Config, RefusesAValueThatItDoesNotKnow) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> cases = {
      {"{}", {"folder/config.json", "model_type", "qwen2", "deepseek_v32", "nothing"}},
      {of("deepseek_v4", ""), {"model_type", "deepseek_v4"}},
      {of("llama", R"("hidden_act": "gelu")"), {"hidden_act", "silu", "gelu"}},
      {of("llama", R"("mlp_bias": true)"), {"mlp_bias"}},
      {of("deepseek_v3", R"("attention_bias": true)"), {"attention_bias"}},
      {of("llama", R"("use_sliding_window": true)"), {"use_sliding_window"}},
      {of("qwen3", R"("layer_types": ["full_attention", "sliding_attention"])"), {"use_sliding_window"}},
      {of("llama", R"("layer_types": ["full_attention", "sliding_attention"])"), {"layer_types", "sliding_attention"}},
      {of("qwen2", R"("use_sliding_window": true, "max_window_layers": 0, "sliding_window": 0)"), {"sliding_window"}},
      {of("llama", R"("attention_sinks": 4)"), {"attention_sinks", "no window"}},
      {of("llama", R"("attention_window": [1, 2])"), {"attention_window", "32 layers"}},
      {of("llama", R"("attention_topk_blocks": -1)"), {"attention_topk_blocks", "-1"}},
      {of("deepseek_v32", R"("attention_window": 512)"), {"attention_window", "indexer"}},
      {of("llama", R"("rope_scaling": {"type": "dynamic", "factor": 2})"), {"rope_scaling.type", "dynamic", "yarn"}},
      {of("llama", R"("rope_parameters": {"rope_type": "longrope"})"), {"rope_parameters.rope_type", "longrope"}},
      {of("llama", R"("rope_scaling": {"type": "default", "mrope_section": [1]})"), {"rope_scaling.mrope_section", "a list of 1"}},
      {of("llama", R"("rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 2})"), {"rope_scaling.type", "yarn", "linear"}},
      {of("llama", R"("rope_scaling": {"type": "linear"})"), {"rope_scaling.factor", "nothing"}},
      {of("llama", R"("rope_scaling": "linear")"), {"rope_scaling", "object"}},
      {of("qwen3", R"("rope_scaling": {"type": "yarn", "factor": 2, "truncate": false})"), {"rope_scaling.truncate"}},
      {of("llama", R"("partial_rotary_factor": 0.5)"), {"partial_rotary_factor"}},
      {of("deepseek_v3", R"("topk_method": "hash")"), {"topk_method", "noaux_tc", "hash"}},
      {of("deepseek_v3", R"("scoring_func": "tanh")"), {"scoring_func", "sqrtsoftplus", "tanh"}},
      {of("deepseek_v3", R"("topk_method": "expert_choice", "num_hash_layers": 2)"), {"num_hash_layers", "expert_choice", "2"}},
      {of("deepseek_v2", R"("n_routed_experts": 8, "num_experts_per_tok": 2, "topk_method": "group_limited_greedy")"), {"n_group"}},
      {of("llama", R"("quantization_config": {"quant_method": "gptq"})"), {"quantization_config.quant_method", "fp8", "gptq"}},
      {of("llama", R"("quantization_config": {"quant_method": "fp8"})"), {"quantization_config.weight_block_size"}},
      {of("llama", R"("quantization_config": {"quant_method": "fp8", "weight_block_size": [0, 128]})"),
       {"quantization_config.weight_block_size"}},
      {of("deepseek_v32", R"("use_mla": false)"), {"use_mla"}},
      {of("deepseek_v32", R"("q_lora_rank": null)"), {"q_lora_rank", "indexer"}},
  };
  for (const auto& [json, parts] : cases)
    for (const std::string& part : parts) EXPECT_THAT(refusal(json), HasSubstr(part)) << json;
}

TEST(Config, ReadsTheMaskOfEachLayer) {
  const auto read = [](const char* family, const std::string& more) { return parse_config(of(family, more), "", "config.json"); };
  EXPECT_TRUE(read("llama", "").masks.empty());
  ModelConfig c = read("qwen2", R"("num_hidden_layers": 3, "use_sliding_window": true, "sliding_window": 100, "max_window_layers": 2)");
  EXPECT_EQ(c.mask_of(1), LayerMask{});
  EXPECT_EQ(c.mask_of(2), LayerMask{.window = 100});
  EXPECT_FALSE(c.forgets());
  c.attention_window = 512, c.attention_sinks = 4;  // the caller's wish
  EXPECT_EQ(c.mask_of(0), (LayerMask{.window = 512, .sinks = 4}));
  EXPECT_EQ(c.mask_of(2), (LayerMask{.window = 100, .sinks = 4})) << "a layer sees no more than it was trained to";
  EXPECT_TRUE(c.forgets());
  c = read("qwen3", R"("num_hidden_layers": 2, "use_sliding_window": true, "sliding_window": 9,
    "layer_types": ["sliding_attention", "full_attention"])");
  EXPECT_EQ(c.mask_of(0), LayerMask{.window = 9});
  EXPECT_EQ(c.mask_of(1), LayerMask{});
  c = read("deepseek_v2", R"("num_hidden_layers": 2, "attention_window": [0, 64], "attention_sinks": [0, 2], "attention_topk_blocks": 7)");
  EXPECT_EQ(c.mask_of(0), (LayerMask{.top_blocks = 7}));
  EXPECT_EQ(c.mask_of(1), (LayerMask{.window = 64, .sinks = 2, .top_blocks = 7}));
}

TEST(Config, RefusesSizesThatDoNotFit) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {of("llama", R"("hidden_size": 0)"), "hidden_size: expected a whole number from 1 to 16777216, found 0"},
      {of("llama", R"("hidden_size": -1)"), "hidden_size"},
      {of("llama", R"("hidden_size": 64.5)"), "found 64.5"},
      {of("llama", R"("hidden_size": "64")"), "found \"64\""},
      {of("llama", R"("hidden_size": 18446744073709551615)"), "hidden_size"},
      {of("llama", R"("vocab_size": null)"), "vocab_size: expected a whole number from 1 to 16777216, found nothing"},
      {of("llama", R"("num_hidden_layers": 1048576)"), "num_hidden_layers"},
      {of("llama", R"("rms_norm_eps": -1e-5)"), "rms_norm_eps"},
      {of("llama", R"("rope_theta": 0)"), "rope_theta"},
      {of("llama", R"("num_attention_heads": 6, "num_key_value_heads": 4, "head_dim": 8)"),
       "num_key_value_heads: expected a divisor of num_attention_heads (6), found 4"},
      {of("llama", R"("hidden_size": 100, "num_attention_heads": 3)"), "num_attention_heads: expected a divisor of hidden_size (100)"},
      {of("llama", R"("head_dim": 7)"), "head_dim: expected an even number"},
      {of("deepseek_v3", R"("qk_rope_head_dim": 7)"), "qk_rope_head_dim: expected an even number"},
      {of("deepseek_v3", R"("num_experts_per_tok": 257, "topk_group": 8)"),
       "num_experts_per_tok: expected at most n_routed_experts (256), found 257"},
      {of("deepseek_v3", R"("num_experts_per_tok": null)"), "num_experts_per_tok"},
      {of("deepseek_v3", R"("n_group": 7)"), "n_group: expected a divisor of n_routed_experts (256), found 7"},
      {of("deepseek_v3", R"("topk_group": 9)"), "topk_group: expected at most n_group (8), found 9"},
      {of("deepseek_v3", R"("n_routed_experts": 16, "topk_group": 1)"), "num_experts_per_tok: expected at most 2"},
      {of("deepseek_v3", R"("n_routed_experts": 8, "topk_group": 8)"), "n_group: expected groups of two experts"},
      {of("deepseek_v3", R"("num_hidden_layers": 16384, "n_routed_experts": 16384)"), "n_routed_experts"},
      {of("llama", R"("head_dim": 16777216)"), "head_dim"},
      {of("llama", R"("hidden_size": 16777216, "intermediate_size": 16777216, "num_hidden_layers": 16384, "head_dim": 2)"),
       "num_hidden_layers"},
      {of("qwen3", R"("rope_theta": 1, "rope_scaling": {"type": "yarn", "factor": 2})"), "rope_theta"},
      {of("llama", R"("eos_token_id": -5)"), "eos_token_id"},
      {of("llama", R"("eos_token_id": [1, 2147483648])"), "eos_token_id"},
      {of("llama", R"("bos_token_id": [1])"), "bos_token_id"},
      {of("llama", R"("rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4})"), "high_freq_factor"},
  };
  for (const auto& [json, part] : cases) EXPECT_THAT(refusal(json), HasSubstr(part)) << json;
}

TEST(Config, SaysWhereTheJsonBreaks) {
  EXPECT_THAT(refusal("{\n  \"model_type\": llama\n}"),
              HasSubstr("folder/config.json: expected JSON, found something else at line 2, column 17"));
  EXPECT_THAT(refusal(""), HasSubstr("expected JSON"));
  EXPECT_THAT(refusal("[1]"), HasSubstr("expected a JSON object, found a list of 1"));
  EXPECT_THAT(refusal("{\"model_type\": \"llama\", \"rope_theta\": 1e999}"), HasSubstr("expected JSON"));
  EXPECT_THAT(refusal(of("llama", "\"x\": \"\xff\"")), HasSubstr("expected JSON"));
  EXPECT_THAT(refusal(of("llama", ""), "{"), HasSubstr("folder/generation_config.json: expected JSON"));
  const std::string deep(1'000'000, '[');
  EXPECT_THAT(refusal(deep), HasSubstr("expected JSON")) << "nesting is no recursion";
  EXPECT_THAT(refusal(of("llama", "\"hidden_size\": " + deep + std::string(deep.size(), ']'))), HasSubstr("hidden_size"));
}

TEST(Config, ReadsAFolder) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "config-folder";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << of("llama", "");
  std::filesystem::remove(folder / "generation_config.json");
  EXPECT_THAT(read_config(folder).end_tokens, ElementsAre(2));
  std::ofstream(folder / "generation_config.json") << R"({"eos_token_id": 3})";
  EXPECT_THAT(read_config(folder).end_tokens, ElementsAre(2, 3));
  std::filesystem::remove(folder / "config.json");
  EXPECT_THROW(read_config(folder), Error);
}

}  // namespace
}  // namespace hadal
