// Packed models give the same bits whatever computes them: threads, chunks, neighbours in the batch, and instruction sets (this program
// runs once on each level; the recorded sums must come out on all of them).
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "core/pool.h"
#include "core/random.h"
#include "infer/forward.h"
#include "infer/model.h"
#include "tests/infer/models.h"

namespace hadal {
namespace {

constexpr int64_t length = 70;  // more than a page of the cache

std::vector<int32_t> tokens_of(int64_t sequence, int64_t vocab) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < length; ++i) tokens.push_back(int32_t(mix_bits(uint64_t(1000 * sequence + i)) % uint64_t(vocab)));
  return tokens;
}

// The logits of every row of `sequences` sequences that are fed together, `chunk` rows of each in one pass: [sequences][length * vocab].
std::vector<std::vector<float>> logits_of(const Model& model, DType cache, int64_t sequences, int64_t chunk) {
  KvCache kv(model.config, cache, sequences * 128);
  Scratch scratch(model.config, sequences * chunk, sequences * chunk);
  std::vector<KvRows> rows(static_cast<size_t>(sequences));
  std::vector<std::vector<float>> all(static_cast<size_t>(sequences));
  for (int64_t first = 0; first < length; first += chunk) {
    const int64_t count = std::min(chunk, length - first);
    std::vector<int32_t> tokens, wanted;
    std::vector<Segment> segments;
    for (int64_t s = 0; s < sequences; ++s) {
      EXPECT_TRUE(kv.reserve(rows[size_t(s)], first + count));
      segments.push_back({&rows[size_t(s)], int64_t(tokens.size()), count, first});
      const std::vector<int32_t> text = tokens_of(s, model.config.vocab);
      for (int64_t i = 0; i < count; ++i) {
        wanted.push_back(int32_t(tokens.size()));
        tokens.push_back(text[size_t(first + i)]);
      }
    }
    const Mat<float> logits = forward(model, {tokens, segments, wanted}, kv, scratch);
    for (int64_t r = 0; r < logits.rows; ++r) {
      std::vector<float>& of_sequence = all[size_t(r / count)];
      of_sequence.insert(of_sequence.end(), logits.row(r), logits.row(r) + logits.cols);
    }
  }
  return all;
}

uint64_t sum_of_bits(const std::vector<float>& values) {
  uint64_t sum = 0;
  for (const float v : values) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    sum = mix_bits(sum ^ bits);
  }
  return sum;
}

ModelConfig sized(ModelConfig c) {  // heads that packed panels can be cut at
  c.dim = 96, c.ffn_dim = 160, c.moe.expert_dim = c.moe.experts > 0 ? 48 : 0;
  if (c.attention == AttentionKind::mla) c.kv_rank = 32, c.nope_dim = 16, c.v_dim = 16, c.q_rank = c.q_rank > 0 ? 32 : 0;
  return c;
}

class PackedBits : public testing::TestWithParam<NamedConfig> {
 protected:
  ~PackedBits() override { set_pool_threads(before_); }
  const int before_ = pool().threads();
};

TEST_P(PackedBits, DoNotDependOnThreadsChunksOrNeighbours) {
  for (const DType type : {DType::w8, DType::w4, DType::w2}) {
    const Model model = random_model(sized(GetParam().config), {type, {}}, 7);
    set_pool_threads(1);
    const std::vector<float> expected = logits_of(model, DType::i8, 1, length)[0];
    for (const float v : expected) ASSERT_TRUE(std::isfinite(v) && std::abs(v) < 100) << v;
    for (const int threads : {1, 2}) {
      set_pool_threads(threads);
      for (const int64_t sequences : {1, 7, 17})
        for (const int64_t chunk : {int64_t(1), int64_t(16), length}) {
          if (sequences * chunk > 32 * 16) continue;
          const std::vector<float> got = logits_of(model, DType::i8, sequences, chunk)[0];
          ASSERT_EQ(0, std::memcmp(got.data(), expected.data(), expected.size() * sizeof(float)))
              << name_of(type) << ", " << threads << " threads, " << sequences << " sequences, chunks of " << chunk;
        }
    }
  }
}

TEST_P(PackedBits, AreThoseRecorded) {
  static const std::map<std::string, uint64_t> recorded{{"gqa", 3642843219370681476u},
                                                        {"qwen", 4294778990316858719u},
                                                        {"moe", 7723420768962441541u},
                                                        {"mla", 16473925622481729396u},
                                                        {"v32", 4851932034208493830u}};
  uint64_t sum = 0;
  for (const DType type : {DType::w8, DType::w4, DType::w3, DType::w2}) {
    const Model model = random_model(sized(GetParam().config), {type, {}}, 7);
    for (const std::vector<float>& logits : logits_of(model, DType::i8, 3, 16)) sum = mix_bits(sum ^ sum_of_bits(logits));
  }
  EXPECT_EQ(sum, recorded.at(GetParam().name)) << GetParam().name;
}

INSTANTIATE_TEST_SUITE_P(Small, PackedBits, testing::ValuesIn(small_configs()), [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace hadal
