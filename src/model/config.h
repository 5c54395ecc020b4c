// What a DeepSeek model is, as numbers. Read from config.json or GGUF metadata, never guessed.
// Source of every key and fallback: docs/numerics.md.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace hadal {

enum class AttentionKind { gqa, mla };
enum class RopeLayout { halves, pairs };  // (i, i + d/2) or (2i, 2i + 1)
enum class RopeScaling { none, linear, llama3, yarn, table };
enum class RouterScore { softmax, sigmoid, sqrt_softplus };
enum class GroupScore { best, top2_sum };  // how a group of experts is ranked

struct RopeConfig {
  RopeLayout layout = RopeLayout::halves;
  RopeScaling scaling = RopeScaling::none;
  float theta = 10000, factor = 1;
  int64_t original_context = 0;                 // llama3, yarn
  float low_frequency = 1, high_frequency = 4;  // llama3: wavelengths in turns over original_context
  float beta_fast = 32, beta_slow = 1;          // yarn
  std::vector<float> divisors;                  // table: of each pair's frequency
  float magnitude = 1;                          // factor on cos and sin
};

struct MoeConfig {  // experts == 0: the model is dense
  int64_t experts = 0, active = 0, shared = 0, expert_dim = 0;
  int64_t groups = 1, active_groups = 1;
  RouterScore score = RouterScore::softmax;
  GroupScore group_score = GroupScore::best;
  int64_t hash_layers = 0;     // in so many first layers a row's experts follow from its token alone
  bool expert_choice = false;  // experts choose rows, not rows experts: a router for training, which the engine refuses
  bool bias = false;           // added to the scores for the selection only
  bool normalize = false;      // chosen weights divided by their sum
  float scale = 1;
};

struct IndexerConfig {                   // heads == 0: every key is attended
  int64_t heads = 0, dim = 0, keys = 0;  // keys: how many of the past each row attends
};

struct LayerMask {         // which keys of the past a row of a layer attends to
  int64_t window = 0;      // the last `window`, its own included; 0: all
  int64_t sinks = 0;       // and the first `sinks`; only beside a window
  int64_t top_blocks = 0;  // of the blocks of 64 keys, the best so many by content; 0: all
  bool operator==(const LayerMask&) const = default;
};

struct Fp8Config {  // of weights stored as FP8: one scale per block of so many rows and columns
  int64_t block_rows = 128, block_cols = 128;
};

struct ModelConfig {
  std::string family;  // model_type as published
  int64_t vocab = 0, dim = 0, layers = 0, heads = 0, context = 0;
  float norm_eps = 1e-6f;
  RopeConfig rope;
  float attention_scale = 0;  // on q . k, with the YaRN factor in it
  AttentionKind attention = AttentionKind::gqa;
  int64_t kv_heads = 0, head_dim = 0;  // gqa
  bool qkv_bias = false, qk_norm = false, out_bias = false;
  int64_t q_rank = 0, kv_rank = 0, nope_dim = 0, rope_dim = 0, v_dim = 0;  // mla; q_rank 0: full-rank q
  float latent_norm_eps = 1e-6f;                                           // mla: norms of the compressed q and kv
  IndexerConfig indexer;
  std::vector<LayerMask> masks;  // of each layer, as the model was trained; none: full attention
  int64_t attention_window = 0, attention_sinks = 0, attention_top_blocks = 0;  // the caller's, for every layer; 0: the model's own
  int64_t dense_layers = 0, moe_every = 1, ffn_dim = 0;                         // layers before the first MoE; one in moe_every after that
  MoeConfig moe;
  Fp8Config fp8;
  bool tied_head = false;
  int64_t draft_layers = 0;  // multi-token prediction layers stored behind the others
  bool load_draft = false;   // the first of them is part of the model, to guess tokens with
  int32_t begin_token = -1;
  std::vector<int32_t> end_tokens;

  bool is_moe(int64_t layer) const { return moe.experts > 0 && layer >= dense_layers && layer % moe_every == 0; }
  LayerMask mask_of(int64_t layer) const {
    LayerMask mask = layer >= int64_t(masks.size()) ? LayerMask{} : masks[size_t(layer)];
    if (attention_window > 0 && (mask.window == 0 || attention_window < mask.window)) mask.window = attention_window;
    if (attention_sinks > 0) mask.sinks = attention_sinks;
    if (attention_top_blocks > 0) mask.top_blocks = attention_top_blocks;
    return mask;
  }
  int64_t cached_layers() const { return layers + (load_draft ? 1 : 0); }  // that keep keys and values
  bool forgets() const {                                                   // every layer has a window
    for (int64_t layer = 0; layer < layers; ++layer)
      if (mask_of(layer).window == 0) return false;
    return true;
  }
  int64_t q_dim() const { return attention == AttentionKind::mla ? nope_dim + rope_dim : head_dim; }  // per head
  int64_t rotated_dim() const { return attention == AttentionKind::mla ? rope_dim : head_dim; }       // of each head
  int64_t kv_width() const {                                                                          // values kept per token and layer
    return attention == AttentionKind::mla ? kv_rank + rope_dim + indexer.dim : 2 * kv_heads * head_dim;
  }
};

// Error names the file and the key when a value is missing, of the wrong type, out of range, or changes the maths in a way hadal does not
// know.
ModelConfig parse_config(const std::string& json, const std::string& generation_json, const std::string& where);
ModelConfig read_config(const std::filesystem::path& folder);  // config.json and, if there, generation_config.json
class Gguf;
ModelConfig config_of(const Gguf& file);

std::vector<float> rope_frequencies(const ModelConfig& config);  // radians per position of each rotated pair [rotated_dim / 2]

}  // namespace hadal
