// Calls of tools out of a reply's text, however it is cut.
#include "model/tool_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "core/error.h"
#include "model/built_in_templates.h"

namespace hadal {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// "text", "call NAME", "with ARGUMENTS", in order; pieces of one kind joined.
std::vector<std::string> read(CallStyle style, const std::string& text, const std::function<size_t()>& next_size) {
  ToolCallParser parser(style);
  std::vector<ReplyPiece> all;
  for (size_t at = 0; at < text.size();) {
    size_t size = std::min(std::max<size_t>(1, next_size()), text.size() - at);
    while (at + size < text.size() && (uint8_t(text[at + size]) & 0xc0) == 0x80) ++size;  // whole characters come
    parser.push(std::string_view(text).substr(at, size), all);
    at += size;
  }
  parser.finish(all);
  std::vector<std::string> said;
  auto last = ReplyPiece::Kind::call;
  for (const ReplyPiece& piece : all) {
    const bool same = !said.empty() && piece.kind == last && last != ReplyPiece::Kind::call;
    if (same)
      said.back() += piece.text;
    else if (piece.kind == ReplyPiece::Kind::call)
      said.push_back("call " + piece.text);
    else
      said.push_back((piece.kind == ReplyPiece::Kind::arguments ? "with " : "") + piece.text);
    last = piece.kind;
  }
  return said;
}

std::vector<std::string> read_whole(CallStyle style, const std::string& text) {
  return read(style, text, [&] { return text.size(); });
}

struct Case {
  CallStyle style;
  std::string text;
  std::vector<std::string> said;
};

std::vector<Case> cases() {
  const std::string b = "<｜tool▁calls▁begin｜>", e = "<｜tool▁calls▁end｜>", c = "<｜tool▁call▁begin｜>", d = "<｜tool▁call▁end｜>",
                    s = "<｜tool▁sep｜>";
  const std::string p = "<｜DSML｜parameter name=\"", q = "</｜DSML｜parameter>\n";
  using enum CallStyle;
  return {
      {tagged_json, "", {}},
      {tagged_json, " plain <text>, a < b \n", {" plain <text>, a < b \n"}},
      {tagged_json,
       "Look:\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"</tool_call>\", \"b\": [1, {}]}}\n</tool_call>",
       {"Look:", "call f", "with {\"a\": \"}\\\"</tool_call>\", \"b\": [1, {}]}"}},
      {tagged_json,
       "<tool_call>{\"arguments\":{\"x\":1},\"name\":\"g\"}</tool_call>\n<tool_call>\n{\"name\": \"h\"}\n</tool_call>\n",
       {"call g", "with {\"x\":1}", "call h", "with {}"}},
      {tagged_json, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1", {"call f", "with {\"a\": 1"}},
      {tagged_json, "see <tool_call> there", {"see <tool_call> there"}},
      {tagged_json, "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call> done \n", {"call f", "with {}", "done \n"}},
      {fenced_json,
       b + c + "function" + s + "f\n```json\n{\"a\": \"```\"}\n```" + d + "\n" + c + "function" + s + "g\n```json\n{}\n```" + d + e,
       {"call f", "with {\"a\": \"```\"}", "call g", "with {}"}},
      {plain_json,
       "Well.\n" + b + c + "f" + s + "{\"a\": {\"b\": 2}}" + d + c + "g" + s + "{}" + d + e,
       {"Well.", "call f", "with {\"a\": {\"b\": 2}}", "call g", "with {}"}},
      {plain_json, b + "what", {b + "what"}},
      {parameters,
       "I look.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n" + p + "a\" string=\"true\">say \"hi\"\n</b>" + q + p +
           "n\" string=\"false\">[1, 2]" + q +
           "</｜DSML｜invoke>\n<｜DSML｜invoke name=\"g\">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
       {"I look.", "call f", "with {\"a\": \"say \\\"hi\\\"\\n</b>\", \"n\": [1, 2]}", "call g", "with {}"}},
  };
}

TEST(ToolCallParser, ReadsEveryStyle) {
  for (const Case& one : cases()) EXPECT_EQ(read_whole(one.style, one.text), one.said) << one.text;
}

TEST(ToolCallParser, TheSameWhereverTheTextIsCut) {
  std::mt19937 random(1);
  for (const Case& one : cases())
    for (int round = 0; round < 300; ++round) {
      const size_t most = 1 + random() % 20;
      EXPECT_EQ(read(one.style, one.text, [&] { return random() % most; }), one.said) << one.text;
    }
}

TEST(ToolCallParser, AnythingEnds) {
  std::mt19937 random(2);
  const std::vector<std::string> parts{"<tool_call>",
                                       "</tool_call>",
                                       "{",
                                       "}",
                                       "\"",
                                       "\\",
                                       "name",
                                       ":",
                                       ",",
                                       " ",
                                       "\n",
                                       "<｜tool▁calls▁begin｜>",
                                       "<｜tool▁calls▁end｜>",
                                       "<｜tool▁call▁begin｜>",
                                       "<｜tool▁call▁end｜>",
                                       "<｜tool▁sep｜>",
                                       "```json",
                                       "<｜DSML｜function_calls>",
                                       "<｜DSML｜invoke name=\"",
                                       "\">",
                                       "<｜DSML｜parameter name=\"",
                                       "</｜DSML｜parameter>",
                                       "</｜DSML｜invoke>",
                                       "\"name\":\"f\"",
                                       "\"arguments\":"};
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (size_t i = random() % 20; i > 0; --i) text += parts[random() % parts.size()];
    for (const CallStyle style : {CallStyle::tagged_json, CallStyle::fenced_json, CallStyle::plain_json, CallStyle::parameters}) {
      const auto whole = read_whole(style, text);
      ASSERT_EQ(read(style, text, [&] { return random() % 5; }), whole) << text;
    }
  }
}

TEST(ToolFormat, IsWhatTheTemplateWrites) {
  EXPECT_EQ(tool_format("{% for t in tools %}<tool_call>{{ m.tool_calls }}").style, CallStyle::tagged_json);
  EXPECT_EQ(tool_format("<｜tool▁sep｜>' + '\\n' + '```json'").style, CallStyle::fenced_json);
  EXPECT_EQ(tool_format("{{ tools }}<｜tool▁sep｜>").style, CallStyle::plain_json);
  EXPECT_EQ(tool_format(std::string(deepseek_v32_template)).style, CallStyle::parameters);
  EXPECT_TRUE(tool_format(std::string(deepseek_v32_template)).explained);
  EXPECT_FALSE(tool_format("{{ m.tool_calls }}<tool_call>").explained);
  EXPECT_FALSE(tool_format("{{ messages }}").replayed);
  EXPECT_THROW(tool_format("<tool_call>\n<function=f>"), Error);
}

Message said(const std::string& role, const std::string& content) {
  Message message;
  message.role = role, message.content = content;
  return message;
}

TEST(WithTools, WritesWhatTheTemplateDoesNot) {
  const std::string tools = R"([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])";
  Message calls = said("assistant", "");
  calls.tool_calls = R"([{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":  1.0}"}}])";
  const auto plain = with_tools({said("user", "x"), calls, said("tool", "7")}, tools, {CallStyle::tagged_json, false, false});
  ASSERT_EQ(plain.size(), 4u);
  EXPECT_EQ(plain[0].role, "system");
  EXPECT_THAT(plain[0].content, HasSubstr("\"name\":\"f\""));
  EXPECT_EQ(plain[2].content, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\":  1.0}}\n</tool_call>");
  EXPECT_EQ(plain[3].role, "user");
  EXPECT_EQ(with_tools({said("user", "x"), calls}, tools, {CallStyle::tagged_json, true, true}).size(), 2u);
}

}  // namespace
}  // namespace hadal
