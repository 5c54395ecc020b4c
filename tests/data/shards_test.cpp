#include "data/shards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <numeric>

#include "data/files.h"
#include "data/token_stream.h"
#include "tests/data/fixed_source.h"
#include "tests/model/made_files.h"

namespace hadal {
namespace {

using test::error_of;
using test::FixedSource;
using test::Folder;
using testing::HasSubstr;

class ShardsTest : public testing::Test {
 protected:
  ShardsTest() {
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
      std::filesystem::copy_file(std::filesystem::path(HADAL_SOURCE) / "tests/golden/llama/model" / name, folder.path() / name);
    folder.write("chat_template.jinja", "{{ bos_token }}{% for m in messages %}{{ m.content }}\n{% endfor %}");
    for (int i = 0; i < 100; ++i) source.add("This is text number " + std::to_string(i * i) + ", and it goes on.");
  }
  std::filesystem::path out() const { return folder.path() / "shards"; }
  // All tokens and weights as they should lie in the shards.
  std::pair<std::vector<int32_t>, std::vector<uint8_t>> packed(const Encoder& encoder) const {
    std::vector<int32_t> tokens;
    std::vector<uint8_t> weights;
    for (const Example& example : source.examples) {
      const EncodedExample e = encoder.encode(example);
      tokens.insert(tokens.end(), e.tokens.begin(), e.tokens.end());
      weights.insert(weights.end(), e.weights.begin(), e.weights.end());
    }
    return {tokens, weights};
  }
  Folder folder;
  FixedSource source;
};

TEST_F(ShardsTest, ExamplesAreTokensOfWhichTheAnswerCounts) {
  const Encoder encoder(folder.path());
  const EncodedExample plain = encoder.encode({"some text", {}, {}, {}, {}});
  EXPECT_EQ(encoder.tokenizer().decode({plain.tokens.begin() + 1, plain.tokens.end() - 1}), "some text");
  EXPECT_EQ(plain.tokens.front(), *encoder.tokenizer().begin_token());
  EXPECT_EQ(plain.tokens.back(), encoder.end_token());
  EXPECT_EQ(plain.weights.front(), 0);
  EXPECT_EQ(std::accumulate(plain.weights.begin(), plain.weights.end(), 0), int(plain.tokens.size()) - 1);

  const EncodedExample asked = encoder.encode({"document", "q?", "the answer", {}, {}});
  const std::vector<int32_t> prompt = encoder.encode_prompt({"document", "q?", {}, {}, {}});
  EXPECT_EQ(encoder.tokenizer().decode({prompt.begin() + 1, prompt.end()}), "document\nq?\n");
  EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), asked.tokens.begin()));
  for (size_t i = 0; i < asked.tokens.size(); ++i) EXPECT_EQ(asked.weights[i], i >= prompt.size()) << i;
  EXPECT_EQ(encoder.tokenizer().decode({asked.tokens.begin() + std::ptrdiff_t(prompt.size()), asked.tokens.end() - 1}), "the answer");
}

TEST_F(ShardsTest, OfATalkEveryAnswerCounts) {
  Example talk{"document", "q?", "the answer", {}, {}};
  talk.more = {{"and then?", "the next"}, {"why?", "because"}};
  EXPECT_THAT(error_of([&] { (void)Encoder(folder.path()).encode(talk); }), HasSubstr("expected examples with one question"));

  folder.write("chat_template.jinja",
               "{{ bos_token }}{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% else %}{{ '\n' }}{% "
               "endif %}{% endfor %}");
  const Encoder encoder(folder.path());
  const EncodedExample encoded = encoder.encode(talk);
  ASSERT_EQ(encoded.weights.size(), encoded.tokens.size());
  std::vector<std::string> counted(1);
  for (size_t i = 0; i < encoded.tokens.size(); ++i) {
    if (encoded.weights[i] == 0) continue;
    if (encoded.tokens[i] == encoder.end_token()) {
      counted.emplace_back();
    } else {
      counted.back() += encoder.tokenizer().decode({&encoded.tokens[i], &encoded.tokens[i] + 1});
    }
  }
  EXPECT_THAT(counted, testing::ElementsAre("the answer", "the next", "because", ""));
  EXPECT_EQ(encoder.tokenizer().decode(encoded.tokens),
            "<｜begin▁of▁sentence｜>document\nq?\nthe answer<｜end▁of▁sentence｜>and then?\nthe "
            "next<｜end▁of▁sentence｜>why?\nbecause<｜end▁of▁sentence｜>");
}

TEST_F(ShardsTest, AControlTokenWrittenInATextIsText) {
  const Encoder encoder(folder.path());
  const std::string written = "<｜end▁of▁sentence｜>";
  const EncodedExample plain = encoder.encode({written, {}, {}, {}, {}}), asked = encoder.encode({written, written, written, {}, {}});
  EXPECT_EQ(std::count(plain.tokens.begin(), plain.tokens.end(), encoder.end_token()), 1);
  EXPECT_EQ(std::count(asked.tokens.begin(), asked.tokens.end(), encoder.end_token()), 1);
}

TEST_F(ShardsTest, ReadBackWhatWasWritten) {
  const Encoder encoder(folder.path());
  source.ask("d", "q?", "a");
  const auto [tokens, weights] = packed(encoder);
  for (const int64_t shard_tokens : {1001, 127 * 8, 1 << 20}) {
    std::filesystem::remove_all(out());
    write_shards(source, encoder, out(), {.shard_tokens = shard_tokens});
    const Shards shards(out());
    ASSERT_EQ(shards.tokens(), int64_t(tokens.size()));
    EXPECT_EQ(shards.examples(), source.size());
    EXPECT_EQ(shards.vocab(), encoder.tokenizer().size());
    shards.expect(encoder);
    for (const int64_t first : {0, 1, 7, 8, 126, 999, 1000, 1001, 1015})
      for (const int64_t count : {0, 1, 8, 15, 17, 300}) {
        std::vector<int32_t> read(static_cast<size_t>(count));
        std::vector<uint8_t> mask(read.size());
        shards.read(first, count, read.data(), mask.data());
        EXPECT_TRUE(std::equal(read.begin(), read.end(), tokens.begin() + first)) << shard_tokens << " " << first << " " << count;
        EXPECT_TRUE(std::equal(mask.begin(), mask.end(), weights.begin() + first)) << shard_tokens << " " << first << " " << count;
      }
  }
}

TEST_F(ShardsTest, StopsBehindTheTokensAskedFor) {
  const Encoder encoder(folder.path());
  write_shards(source, encoder, out(), {.tokens = 100});
  const Shards shards(out());
  EXPECT_GE(shards.tokens(), 100);
  EXPECT_LT(shards.tokens(), 200);
  EXPECT_LT(shards.examples(), 10);
}

TEST_F(ShardsTest, NoQuestionCrossesABlock) {
  const Encoder encoder(folder.path());
  source.examples.clear();
  for (int i = 0; i < 40; ++i) source.ask(std::string(size_t(i), 'x'), "q?", "a");
  const int64_t longest = int64_t(encoder.encode(source.examples.back()).tokens.size()), block = longest + 3;
  write_shards(source, encoder, out(), {.block = block});
  const Shards shards(out());
  std::vector<int32_t> tokens(size_t(shards.tokens()));
  std::vector<uint8_t> weights(tokens.size());
  shards.read(0, shards.tokens(), tokens.data(), weights.data());
  int begins = 0;
  for (int64_t at = 0; at < shards.tokens(); ++at) {
    if (tokens[size_t(at)] != *encoder.tokenizer().begin_token()) continue;
    const auto length = int64_t(encoder.encode(source.examples[size_t(begins++)]).tokens.size());
    EXPECT_EQ(at / block, (at + length - 1) / block) << begins;
  }
  EXPECT_EQ(begins, 40);
  std::filesystem::remove_all(out());
  EXPECT_THAT(error_of([&] { write_shards(source, encoder, out(), {.block = longest - 1}); }), HasSubstr("example 39 has"));
  EXPECT_FALSE(std::filesystem::exists(out()));
  EXPECT_FALSE(std::filesystem::exists(out().string() + ".part"));
}

TEST_F(ShardsTest, SaysWhatIsWrong) {
  const Encoder encoder(folder.path());
  write_shards(source, encoder, out(), {.shard_tokens = 500});
  EXPECT_THAT(error_of([&] { write_shards(source, encoder, out()); }), HasSubstr("exists already"));
  EXPECT_THAT(error_of([&] { write_shards(FixedSource(), encoder, folder.path() / "none"); }), HasSubstr("gives no tokens"));
  SourceConfig worlds;
  worlds.kind = "world_text";
  EXPECT_THAT(error_of([&] { write_shards(*open_source(worlds), encoder, folder.path() / "none"); }), HasSubstr("never ends"));
  EXPECT_THAT(error_of([&] { Shards(folder.path() / "gone"); }), HasSubstr("shard-00000.tokens"));

  const auto damage = [&](size_t at, const std::string& expected) {
    const auto path = out() / "shard-00001.tokens";
    const std::string whole = read_text(path);
    std::string bytes = whole;
    bytes[at] = char(bytes[at] ^ 1);
    std::ofstream(path, std::ios::binary) << bytes;
    EXPECT_THAT(error_of([&] { Shards{out()}; }), testing::AllOf(HasSubstr("shard-00001.tokens"), HasSubstr(expected))) << at;
    std::ofstream(path, std::ios::binary) << whole;
  };
  damage(0, "it is no shard of tokens");
  damage(9, "the header is damaged");
  damage(sizeof(ShardHeader), "the tokens are damaged");
  damage(sizeof(ShardHeader) + 1010, "the tokens are damaged");
  std::filesystem::resize_file(out() / "shard-00001.tokens", sizeof(ShardHeader) + 100);
  EXPECT_THAT(error_of([&] { Shards{out()}; }), HasSubstr("expected 1151 for 500 tokens"));
  std::filesystem::remove(out() / "shard-00001.tokens");
  EXPECT_THAT(error_of([&] { Shards{out()}; }), HasSubstr("shard-00001.tokens"));

  std::filesystem::remove_all(out());
  write_shards(source, encoder, out());
  folder.write("chat_template.jinja", "{{ messages[0].content }}");
  EXPECT_THAT(error_of([&] { Shards(out()).expect(Encoder(folder.path())); }), HasSubstr("another tokenizer"));
  std::filesystem::remove(folder.path() / "chat_template.jinja");
  EXPECT_THAT(error_of([&] { Encoder(folder.path()).encode({"d", "q?", "a", {}, {}}); }), HasSubstr("no chat template"));
  folder.write("tokenizer_config.json", "{}");
  EXPECT_THAT(error_of([&] { Encoder{folder.path()}; }), HasSubstr("no end token"));
}

TEST_F(ShardsTest, AFailingExampleFailsTheWriting) {
  const auto path = folder.write("a.jsonl", "{\"text\": \"x\"}\n{\"no\": 1}\n");
  SourceConfig config;
  config.kind = "jsonl", config.path = path.string(), config.split = "all";
  EXPECT_THAT(error_of([&] { write_shards(*open_source(config), Encoder(folder.path()), out()); }), HasSubstr("a.jsonl:2: "));
  EXPECT_FALSE(std::filesystem::exists(out()));
}

class TokenStreamTest : public ShardsTest {
 protected:
  TokenStreamTest() {
    const Encoder encoder(folder.path());
    write_shards(source, encoder, out(), {.shard_tokens = 300});
    shards = std::make_shared<Shards>(out());
    all = packed(encoder).first;
  }
  std::vector<int32_t> batch(const TokenStream& stream, int64_t index) const {
    const size_t count = size_t(stream.options().rows * (stream.options().length + 1));
    std::vector<int32_t> tokens(count);
    std::vector<uint8_t> weights(count);
    stream.read(index, 0, stream.options().rows, tokens.data(), weights.data());
    return tokens;
  }
  std::shared_ptr<const Shards> shards;
  std::vector<int32_t> all;
};

TEST_F(TokenStreamTest, AnEpochHasEverySequenceOnce) {
  for (const int64_t segments : {1, 3}) {
    const StreamOptions options{.length = 16, .rows = 3, .segments = segments, .seed = 5};
    const TokenStream stream(shards, options);
    std::map<std::vector<int32_t>, int> expected, found;
    const int64_t rows = stream.sequences() * segments;
    for (int64_t i = 0; i < rows; ++i) ++expected[{all.begin() + i * 16, all.begin() + i * 16 + 17}];
    // Three epochs are whole batches.
    for (int64_t index = 0; index < rows; ++index) {
      const std::vector<int32_t> tokens = batch(stream, index);
      for (int r = 0; r < 3; ++r) ++found[{tokens.begin() + r * 17, tokens.begin() + (r + 1) * 17}];
    }
    for (auto& [row, count] : expected) count *= 3;
    EXPECT_EQ(found, expected) << segments;
    EXPECT_DOUBLE_EQ(stream.epoch(rows), 3);
  }
}

TEST_F(TokenStreamTest, SegmentsOfARowGoOnInTheText) {
  const TokenStream stream(shards, {.length = 16, .rows = 4, .segments = 5});
  for (int64_t index = 0; index < 20; ++index) {
    EXPECT_EQ(stream.starts_text(index), index % 5 == 0);
    if (stream.starts_text(index)) continue;
    const auto before = batch(stream, index - 1), now = batch(stream, index);
    for (size_t r = 0; r < 4; ++r) EXPECT_EQ(before[r * 17 + 16], now[r * 17]);
  }
}

TEST_F(TokenStreamTest, AnotherReaderAndEveryRankSeeTheSame) {
  const StreamOptions options{.length = 7, .rows = 4, .seed = 9};
  const TokenStream stream(shards, options), again(shards, options);
  for (const int64_t index : {int64_t(1000), int64_t(3), int64_t(0), int64_t(1) << 40}) {
    const auto whole = batch(stream, index);
    std::vector<int32_t> tokens(4 * 8);
    std::vector<uint8_t> weights(4 * 8);
    again.read(index, 2, 2, tokens.data() + 16, weights.data() + 16);
    again.read(index, 0, 2, tokens.data(), weights.data());
    EXPECT_EQ(tokens, whole) << index;
  }
  EXPECT_NE(batch(stream, 0), batch(TokenStream(shards, {.length = 7, .rows = 4, .seed = 10}), 0));
}

TEST_F(TokenStreamTest, SaysWhatIsWrong) {
  EXPECT_THAT(error_of([&] { TokenStream(shards, {.length = 1 << 20}); }), HasSubstr("expected more than 1048576, one row"));
  EXPECT_THAT(error_of([&] { TokenStream(shards, {.rows = 0}); }), HasSubstr("expected positive numbers"));
  std::filesystem::remove_all(out());
  write_shards(source, Encoder(folder.path()), out(), {.block = 8});
  EXPECT_THAT(error_of([&] { TokenStream(std::make_shared<Shards>(out()), {.length = 12}); }), HasSubstr("multiples of 8"));
}

TEST(Permuted, IsAPermutationThatSpreadsNeighbours) {
  for (const int64_t n : {1, 2, 3, 7, 8, 15, 16, 17, 127, 1000, 30030}) {
    std::vector<int> visits(size_t(n), 0);
    for (int64_t i = 0; i < n; ++i) ++visits[size_t(permuted(i, n, 1, 2))];
    EXPECT_EQ(std::count(visits.begin(), visits.end(), 1), n);
  }
  const int64_t n = 100003;
  for (int64_t first = 0; first < 1000; first += 32) {
    std::array<int, 4> quarters{};
    for (int64_t i = first; i < first + 32; ++i) ++quarters[size_t(permuted(i, n, 3, 0) * 4 / n)];
    for (const int count : quarters) EXPECT_GE(count, 5) << first;
  }
  EXPECT_NE(permuted(1, n, 3, 0), permuted(1, n, 3, 1));
}

}  // namespace
}  // namespace hadal
