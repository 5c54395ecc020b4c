// What a shift leaves is what a sequence without the dropped tokens has. In one layer that holds exactly, whatever the kind of attention:
// keys and values depend on their own token and position alone.
#include "infer/shift.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "infer/forward.h"
#include "tests/infer/models.h"

namespace hadal {
namespace {

constexpr int64_t page = KvCache::page_rows;

std::vector<float> feed(const Model& model, KvCache& kv, KvRows& rows, std::span<const int32_t> tokens) {
  Scratch scratch(model.config, 64, 1);
  std::vector<float> last;
  for (size_t at = 0; at < tokens.size(); at += 64) {
    const auto piece = tokens.subspan(at, std::min<size_t>(64, tokens.size() - at));
    const int32_t wanted = int32_t(piece.size()) - 1;
    const Segment segment{&rows, 0, int64_t(piece.size()), rows.length};
    EXPECT_TRUE(kv.reserve(rows, rows.length + segment.rows));
    const Mat<float> logits = forward(model, {piece, {&segment, 1}, {&wanted, 1}}, kv, scratch);
    last.assign(logits.data, logits.data + logits.cols);
  }
  return last;
}

std::vector<int32_t> some_tokens(int64_t count) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(int32_t((i * i * 31 + 7 * i) % 97));
  return tokens;
}

class Shift : public testing::TestWithParam<NamedConfig> {
 protected:
  // Feeds seven and a half pages, drops two or three of them one or two times, feeds some more; compares with the tokens that are left.
  void compare(const ModelConfig& config) {
    for (const auto& [type, tolerance] : {std::pair{DType::f32, 1e-4f}, {DType::f16, 3e-3f}, {DType::i8, 0.1f}})
      for (const bool again : {false, true}) {
        SCOPED_TRACE(testing::Message() << "cache " << info_of(type).name << (again ? ", twice" : ""));
        const Model model = random_model(config, DType::f32, 4);
        KvCache kv(config, type, 12 * page);
        KvRows shifted, plain;
        std::vector<int32_t> tokens = some_tokens(7 * page + page / 2);
        feed(model, kv, shifted, tokens);
        const int64_t free = kv.free_pages(), count = again ? 1 : 2;
        for (int i = 0; i <= again; ++i) {
          shift(model, kv, shifted, 1, count);
          tokens.erase(tokens.begin() + page, tokens.begin() + (1 + count) * page);
        }
        EXPECT_EQ(shifted.length, int64_t(tokens.size()));
        if (config.attention_window == 0) {
          EXPECT_EQ(kv.free_pages(), free + 2);
        }
        const std::vector<int32_t> more = some_tokens(page + 9);
        const std::vector<float> a = feed(model, kv, shifted, more);
        kv.release(shifted);
        tokens.insert(tokens.end(), more.begin(), more.end());
        EXPECT_THAT(a, testing::Pointwise(testing::FloatNear(tolerance), feed(model, kv, plain, tokens)));
      }
  }
};

ModelConfig one_layer(ModelConfig config) {
  config.layers = 1;
  config.dense_layers = config.moe.experts > 0 ? 1 : 0;
  config.rope.theta = 300;  // so that shifts turn every pair by a good deal
  config.rope.magnitude = 1.2f;
  return config;
}

TEST_P(Shift, LeavesWhatASequenceWithoutTheTokensHas) { compare(one_layer(GetParam().config)); }

TEST_P(Shift, AndOfLayersThatForgetOrChoose) {
  ModelConfig config = one_layer(GetParam().config);
  if (config.indexer.heads > 0) GTEST_SKIP() << "an indexer chooses the keys";
  config.attention_window = 70, config.attention_sinks = 5;
  compare(config);
  config.attention_window = config.attention_sinks = 0, config.attention_top_blocks = 3;
  compare(config);
}

INSTANTIATE_TEST_SUITE_P(Kinds, Shift, testing::ValuesIn(small_configs()), [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace hadal
