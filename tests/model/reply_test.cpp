// Replies fed one byte-token at a time, and in every way of cutting them: what is shown must not depend on the cuts.
#include "model/reply.h"

#include <gtest/gtest.h>

#include "model/unicode.h"

namespace hadal {
namespace {

constexpr int32_t end_of_turn = 256, open_tag = 257, close_tag = 258;

// Token b is the byte b; three special tokens follow.
Tokenizer byte_tokens() {
  std::string vocab;
  for (int b = 0, other = 0x100; b < 256; ++b) {
    const bool plain = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;  // GPT-2 writes the others as letters from U+0100
    std::string letter;
    append_utf8(uint32_t(plain ? b : other++), letter);
    if (letter == "\"" || letter == "\\") letter.insert(0, "\\");
    vocab += (b ? ",\"" : "\"") + letter + "\":" + std::to_string(b);
  }
  const std::string added =
      R"([{"id":256,"content":"<|end|>","special":true},{"id":257,"content":"<think>","special":true},{"id":258,"content":"</think>","special":true}])";
  return Tokenizer::from_json(R"({"added_tokens":)" + added +
                                  R"(,"normalizer":null,"post_processor":null,"decoder":{"type":"ByteLevel"},)" +
                                  R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},)" +
                                  R"("model":{"type":"BPE","vocab":{)" + vocab + R"(},"merges":[]}})",
                              "", "bytes");
}

const Tokenizer& tokens() {
  static const Tokenizer tokenizer = byte_tokens();
  return tokenizer;
}

std::vector<int32_t> bytes_of(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(uint8_t(c));
  return ids;
}

struct Shown {
  std::string reasoning, answer;
  bool stopped = false;
};

void add(Shown& shown, const std::vector<ReplyPiece>& pieces) {
  for (const ReplyPiece& piece : pieces) {
    EXPECT_FALSE(piece.text.empty());
    EXPECT_EQ(valid_utf8_prefix(piece.text), piece.text.size()) << piece.text;
    (piece.kind == ReplyPiece::Kind::reasoning ? shown.reasoning : shown.answer) += piece.text;
  }
}

Shown show(const std::vector<int32_t>& ids, std::vector<std::string> stops = {}, bool in_reasoning = false, bool separate = true) {
  ReplyStream stream(tokens(), std::move(stops), in_reasoning, separate);
  Shown shown;
  for (const int32_t id : ids) add(shown, stream.push(id));
  add(shown, stream.finish());
  shown.stopped = stream.stopped();
  return shown;
}

TEST(ReplyStream, WholeCharactersAtOnce) {
  ReplyStream stream(tokens(), {}, false, true);
  const std::string text = "é世😀";
  std::vector<std::string> pieces;
  for (const int32_t id : bytes_of(text)) {
    for (const ReplyPiece& piece : stream.push(id)) pieces.push_back(piece.text);
  }
  EXPECT_EQ(pieces, (std::vector<std::string>{"é", "世", "😀"}));
  EXPECT_TRUE(stream.finish().empty());
  EXPECT_EQ(show(bytes_of("a\xe4\xb8")).answer, "a\xef\xbf\xbd");
}

TEST(ReplyStream, HoldsOnlyWhatMayBeginAStop) {
  ReplyStream stream(tokens(), {"END", "\n\n"}, false, false);
  EXPECT_EQ(stream.push('a').at(0).text, "a");
  EXPECT_TRUE(stream.push('E').empty());
  EXPECT_TRUE(stream.push('N').empty());
  EXPECT_EQ(stream.push('E').at(0).text, "EN");
  EXPECT_EQ(stream.push('x').at(0).text, "Ex");
  EXPECT_TRUE(stream.push('\n').empty());
  EXPECT_EQ(stream.push('b').at(0).text, "\nb");
  EXPECT_FALSE(stream.stopped());
  stream.push('\n');
  EXPECT_TRUE(stream.push('\n').empty());
  EXPECT_TRUE(stream.stopped());
  EXPECT_TRUE(stream.push('c').empty());
  EXPECT_TRUE(stream.finish().empty());
}

TEST(ReplyStream, StopsAreFoundWhereverTokensAreCut) {
  Shown shown = show(bytes_of("one two STOP three"), {"STOP"});
  EXPECT_EQ(shown.answer, "one two ");
  EXPECT_TRUE(shown.stopped);
  shown = show(bytes_of("aab"), {"ab"});
  EXPECT_EQ(shown.answer, "a");
  shown = show(bytes_of("aaab"), {"aab", "zzzzz", ""});
  EXPECT_EQ(shown.answer, "a");
  shown = show(bytes_of("x世y"), {"世"});
  EXPECT_EQ(shown.answer, "x");
  shown = show(bytes_of("STO"), {"STOP"});
  EXPECT_EQ(shown.answer, "STO");
  EXPECT_FALSE(shown.stopped);
  shown = show({'a', end_of_turn, 'b'}, {"<|end|>"});
  EXPECT_EQ(shown.answer, "a");
  EXPECT_TRUE(shown.stopped);
}

TEST(ReplyStream, SpecialTokensAreNotShown) {
  EXPECT_EQ(show({'a', end_of_turn, 'b'}).answer, "ab");
  EXPECT_EQ(show({-1, 'a', 100000}).answer, "a");
}

TEST(ReplyStream, ReasoningAsTokensOrAsText) {
  std::vector<int32_t> ids{open_tag, '\n', 'w', 'h', 'y', '\n', close_tag, '\n', '\n', '4'};
  for (const auto& reply : {ids, bytes_of("<think>\nwhy\n</think>\n\n4"), bytes_of(" \n<think>\nwhy\n</think>\n\n4")}) {
    const Shown shown = show(reply);
    EXPECT_EQ(shown.reasoning, "why\n");
    EXPECT_EQ(shown.answer, "4");
  }
  ids.erase(ids.begin());
  const Shown opened = show(ids, {}, true);
  EXPECT_EQ(opened.reasoning, "why\n");
  EXPECT_EQ(opened.answer, "4");
}

TEST(ReplyStream, TagsWithinTheAnswerAreText) {
  EXPECT_EQ(show(bytes_of("the <think> tag and </think>")).answer, "the <think> tag and </think>");
  EXPECT_EQ(show(bytes_of("<b>x</b> <thin")).answer, "<b>x</b> <thin");
  EXPECT_EQ(show(bytes_of("<think>a</think>b <think>c</think>")).answer, "b <think>c</think>");
  EXPECT_EQ(show(bytes_of("<think>a</think>b"), {}, false, false).answer, "<think>a</think>b");
  EXPECT_EQ(show({open_tag, 'a', close_tag, 'b'}, {}, true, false).answer, "<think>a</think>b");
  EXPECT_EQ(show(bytes_of("  \n")).answer, "  \n");
}

TEST(ReplyStream, StopsWithinReasoning) {
  const Shown shown = show(bytes_of("<think>abcSTOPdef</think>x"), {"STOP"});
  EXPECT_EQ(shown.reasoning, "abc");
  EXPECT_EQ(shown.answer, "");
  EXPECT_TRUE(shown.stopped);
}

TEST(ReplyStream, UnfinishedReasoning) {
  EXPECT_EQ(show(bytes_of("<think>abc</thi")).reasoning, "abc</thi");
  EXPECT_EQ(show(bytes_of("")).answer, "");
}

TEST(ReplyStream, SameAsTheWholeReply) {
  for (const std::string_view text : {"", "a", "<think>", "<think></think>", "<think>\n\n</think>\n\nhi", "<think>a</think>",
                                      "  <think>a\n</think>b\n", "x<think>y</think>", "</think>z", "<<think>>", "<think>世</think>界"}) {
    for (const bool opened : {false, true}) {
      const Reply whole = split_reasoning(text, opened);
      const Shown shown = show(bytes_of(text), {}, opened);
      EXPECT_EQ(shown.reasoning, whole.reasoning) << text;
      EXPECT_EQ(shown.answer, whole.answer) << text;
    }
  }
}

TEST(Reply, PromptOpensReasoning) {
  EXPECT_TRUE(prompt_opens_reasoning("<｜Assistant｜><think>\n"));
  EXPECT_TRUE(prompt_opens_reasoning("<think>"));
  EXPECT_FALSE(prompt_opens_reasoning("<think>\n\n</think>\n\n"));
  EXPECT_FALSE(prompt_opens_reasoning("<｜Assistant｜></think>"));
  EXPECT_FALSE(prompt_opens_reasoning(""));
}

}  // namespace
}  // namespace hadal
