// Chat templates: what conversations become, how failures read, and that hostile templates end. Beside Jinja2: tests/python.
#include "model/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>

#include "core/error.h"

namespace hadal {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string render(const std::string& source, const std::vector<Message>& messages = {}, const RenderOptions& options = {}) {
  return ChatTemplate::parse(source, "t").render(messages, options);
}

Message says(const std::string& role, const std::string& content) { return {role, content, "", "", "", ""}; }

std::string error_of(const std::string& source, const std::vector<Message>& messages = {}, const RenderOptions& options = {}) {
  try {
    return "no error, but: " + render(source, messages, options).substr(0, 200);
  } catch (const Error& e) {
    return e.what();
  }
}

const std::string chat_ml =
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

TEST(ChatTemplate, ChatMl) {
  const std::vector<Message> messages{says("system", "Be kind."), says("user", "Hi")};
  const std::string turns = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n";
  EXPECT_EQ(render(chat_ml, messages), turns + "<|im_start|>assistant\n");
  RenderOptions options;
  options.add_generation_prompt = false;
  EXPECT_EQ(render(chat_ml, messages, options), turns);
  EXPECT_EQ(render(chat_ml, {}, options), "");
}

TEST(ChatTemplate, DeepSeekHistoryKeepsNoReasoning) {
  const std::string source = R"(
{%- set ns = namespace(system='', calls=false) -%}
{%- for message in messages if message.role == 'system' %}{% set ns.system = ns.system ~ message['content'] %}{% endfor -%}
{{ bos_token }}{{ ns.system }}
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}{{ '<｜User｜>' + message['content'] }}{%- endif -%}
  {%- if message['role'] == 'assistant' and message['content'] is not none -%}
    {%- set content = message['content'] -%}
    {%- if '</think>' in content -%}{%- set content = content.split('</think>')[-1] -%}{%- endif -%}
    {{ '<｜Assistant｜>' + content + eos_token }}
  {%- endif -%}
{%- endfor -%}
{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}
)";
  RenderOptions options;
  options.begin_token = "<B>";
  options.end_token = "<E>";
  const std::vector<Message> messages{says("system", "S."), says("user", "1+1?"), says("assistant", "<think>\nadd\n</think>\n\n2"),
                                      says("user", "再见")};
  EXPECT_EQ(render(source, messages, options), "<B>S.<｜User｜>1+1?<｜Assistant｜>\n\n2<E><｜User｜>再见<｜Assistant｜><think>\n");
}

TEST(ChatTemplate, FieldsOfMessages) {
  const Message calls{"assistant", "", "why", R"([{"function": {"name": "f", "arguments": "{\"x\": 1}"}}])", "", ""};
  const Message result{"tool", "42", "", "", "f", "call_1"};
  const std::string source =
      "{% for m in messages %}{{ m | tojson }}\n{% endfor %}{{ messages[0].content is none }} {{ messages[1].tool_calls is defined }}";
  EXPECT_EQ(
      render(source, {calls, result}),
      R"({"role": "assistant", "content": null, "reasoning_content": "why", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]})"
      "\n"
      R"({"role": "tool", "content": "42", "name": "f", "tool_call_id": "call_1"})"
      "\nTrue False");
}

TEST(ChatTemplate, ToolsAndFurtherVariables) {
  RenderOptions options;
  EXPECT_EQ(render("{{ tools is none }}{{ thinking is defined }}", {}, options), "TrueFalse");
  options.tools = R"([{"b": 1.0, "a": 1e21, "u": 18446744073709551615, "t": "é\u0007/<"}])";
  options.extra = R"({"thinking": true, "bos_token": "<other>"})";
  EXPECT_EQ(render("{{ tools[0] | tojson }}{{ thinking }}{{ bos_token }}", {}, options),
            R"({"b": 1.0, "a": 1e+21, "u": 18446744073709551615, "t": "é\u0007/<"}True<other>)");
}

TEST(ChatTemplate, WhiteSpaceControl) {
  EXPECT_EQ(render("a\n  {% if true %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
  EXPECT_EQ(render("a  {%- if true -%}  b  {%- endif %}  c\n\n"), "ab  c\n");
  EXPECT_EQ(render("  {%+ if true %}a{% endif %}"), "  a");
  EXPECT_EQ(render("{# note #}\nx\r\ny"), "x\ny");
  EXPECT_EQ(render("{% raw %}{{ x }}{% endraw %}"), "{{ x }}");
}

TEST(ChatTemplate, BytesThatAreNoUtf8PassThrough) {
  const std::string bytes = "a\xff\xc3\xe4\xb8z";
  EXPECT_EQ(render("{{ messages[0].content }}", {says("user", bytes)}), bytes);
  EXPECT_EQ(render("{{ messages[0].content | length }}", {says("user", bytes)}), "6");
  EXPECT_EQ(render("{{ messages[0].content[::-1][::-1] }}", {says("user", bytes)}), bytes);
}

TEST(ChatTemplate, ErrorsSayWhere) {
  EXPECT_EQ(error_of("a\n{% unknown %}"), "t: line 2: block 'unknown' is not known");
  EXPECT_EQ(error_of("\n\n{{ x | nope }}"), "t: line 3: filter 'nope' is not known");
  EXPECT_EQ(error_of("{{ x is nope }}"), "t: line 1: test 'nope' is not known");
  EXPECT_EQ(error_of("{% for x in y recursive %}{% endfor %}"), "t: line 1: recursive loops are not known");
  EXPECT_EQ(error_of("{% if x %}\n"), "t: line 1: the template ends, 'endif' is expected");
  EXPECT_EQ(error_of("{{ 1 + }}"), "t: line 1: an expression expected, found '}}'");
  EXPECT_EQ(error_of("{{ 'a }}"), "t: line 1: a string is not closed");
  EXPECT_EQ(error_of("{{ 0x" + std::string(33, 'f') + " }}"), "t: line 1: an integer is out of range");
  EXPECT_EQ(error_of("{{ '%d' % 1e999 }}"), "t: line 1: %d: a finite number is expected");
  EXPECT_EQ(error_of("{% set x = 1 %}\n{{ x.y.z }}"), "t: line 2: 'int object' has no attribute 'y'");
  EXPECT_EQ(error_of("\n{{ raise_exception('roles must alternate') }}"), "t: line 2: roles must alternate");
  EXPECT_EQ(error_of("{{ missing() }}"), "t: line 1: 'missing' is undefined");
  EXPECT_EQ(error_of("{{ 1 + 'a' }}"), "t: line 1: unsupported operand type(s) for +: 'int' and 'str'");
  EXPECT_EQ(error_of("{{ [].append(1) }}"), "t: line 1: access to attribute 'append' of 'list' object is unsafe");
  RenderOptions options;
  options.tools = "[";
  EXPECT_THAT(error_of("x", {}, options), HasSubstr("t: tools is not JSON"));
  options.tools = "";
  options.extra = "[]";
  EXPECT_THAT(error_of("x", {}, options), HasSubstr("must be a JSON object, found 'list'"));
  EXPECT_THAT(error_of("x", {Message{"assistant", "", "", "{", "", ""}}), HasSubstr("tool_calls of message 0 is not JSON"));
}

TEST(ChatTemplate, HostileTemplatesEnd) {
  const std::clock_t start = std::clock();  // of this process: other programs do not count
  const std::string loops = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
  EXPECT_THAT(error_of(loops), HasSubstr("too many"));
  EXPECT_THAT(error_of("{{ 'a' * 10 ** 12 }}"), HasSubstr("over the limit"));
  EXPECT_THAT(error_of("{{ [0] * 10 ** 12 }}"), HasSubstr("over the limit"));
  EXPECT_THAT(error_of("{{ range(10 ** 9) }}"), HasSubstr("range too big"));
  EXPECT_THAT(error_of("{{ 10 ** 10 ** 10 }}"), HasSubstr("out of range"));
  EXPECT_THAT(error_of("{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}"),
              HasSubstr("over the limit"));
  EXPECT_THAT(error_of("{% set s = 'a' * 1000000 %}{% for i in range(999) %}{{ s }}{% endfor %}"), HasSubstr("longer than"));
  EXPECT_THAT(error_of("{{ ('a' * 9999).replace('', 'b' * 99999) }}"), HasSubstr("over the limit"));
  EXPECT_THAT(error_of("{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}"),
              HasSubstr("nested more than"));
  EXPECT_THAT(error_of("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}"), HasSubstr("macros call each other"));
  EXPECT_THAT(error_of("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}"), HasSubstr("cannot be printed"));
  EXPECT_LT((std::clock() - start) / CLOCKS_PER_SEC, 60);
}

TEST(ChatTemplate, DeepNestingIsAnError) {
  const auto many = [](const std::string& piece, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += piece;
    return text;
  };
  EXPECT_THAT(error_of("{{ " + many("(", 100000) + many(")", 100000) + " }}"), HasSubstr("nested"));
  EXPECT_THAT(error_of("{{ " + many("-", 100000) + "1 }}"), HasSubstr("nested"));
  EXPECT_THAT(error_of("{{ " + many("not ", 100000) + "1 }}"), HasSubstr("nested"));
  EXPECT_THAT(error_of("{{ " + many("[", 100000) + many("]", 100000) + " }}"), HasSubstr("nested"));
  EXPECT_THAT(error_of("{{ 1" + many(" + 1", 100000) + " }}"), HasSubstr("nested"));
  EXPECT_THAT(error_of("{{ x" + many(".a", 100000) + " }}"), HasSubstr("nested"));
  EXPECT_THAT(error_of("{{ x" + many(" | trim", 100000) + " }}"), HasSubstr("nested"));
  EXPECT_THAT(error_of("{{ 1" + many(" if 1 else 1", 50000) + " }}"), HasSubstr("nested"));
  EXPECT_THAT(error_of(many("{% if 1 %}", 100000)), HasSubstr("nested"));
  EXPECT_THAT(error_of("{% set " + many("(", 100000) + "x" + many(")", 100000) + " = 1 %}"), HasSubstr("nested"));
  EXPECT_EQ(render("{{ 1" + many(" + 1", 126) + " }}"), "127");
  EXPECT_THAT(error_of("{% macro f() %}{{ f()" + many(" + 1", 170) + " }}{% endmacro %}{{ f() }}"), HasSubstr("nested more than"));
  EXPECT_EQ(render("{{ " + many("(", 60) + "1" + many(")", 60) + " }}"), "1");
  EXPECT_THAT(error_of(std::string(2 << 20, 'x')), HasSubstr("at most 1048576 bytes is expected, found 2097152"));
  RenderOptions options;
  options.extra = "{\"x\": " + many("[", 5000) + many("]", 5000) + "}";
  EXPECT_THAT(error_of("{{ x }}", {}, options), HasSubstr("nested"));
}

TEST(ChatTemplate, MacrosOutliveTheirLoop) {
  const std::string source =
      "{% set ns = namespace(f=none) %}{% for x in [1, 2, 3] %}{% macro f() %}<{{ x }}>{% endmacro %}{% set ns.f = f %}{% endfor %}{{ "
      "ns.f() }}";
  EXPECT_EQ(render(source), "<3>");
  EXPECT_EQ(render("{% set ns = namespace() %}{% for x in 'ab' %}{% set ns.l = loop %}{% endfor %}{{ ns.l.index }}{{ ns.l.previtem }}"),
            "2a");
}

TEST(ChatTemplate, LongConversations) {
  std::vector<Message> messages;
  std::string expected;
  const std::string line(1000, 'x');
  for (int i = 0; i < 5000; ++i) {
    messages.push_back(says(i % 2 ? "assistant" : "user", line));
    expected += std::string("<|im_start|>") + (i % 2 ? "assistant" : "user") + "\n" + line + "<|im_end|>\n";
  }
  EXPECT_EQ(render(chat_ml, messages), expected + "<|im_start|>assistant\n");
}

TEST(ChatTemplate, BuiltInDeepSeekV32) {
  const ChatTemplate chat = ChatTemplate::built_in("deepseek_v32");
  const std::vector<Message> messages{says("system", "S"), says("user", "a"), says("assistant", "b"), says("user", "c")};
  const std::string history = "<｜begin▁of▁sentence｜>S<｜User｜>a<｜Assistant｜></think>b<｜end▁of▁sentence｜><｜User｜>c";
  RenderOptions options;
  EXPECT_EQ(chat.render(messages, options), history + "<｜Assistant｜></think>");
  options.add_generation_prompt = false;
  EXPECT_EQ(chat.render(messages, options), history);
  options.add_generation_prompt = true;
  options.extra = R"({"thinking": true})";
  EXPECT_EQ(chat.render(messages, options), history + "<｜Assistant｜><think>");
  EXPECT_THROW(ChatTemplate::built_in("llama"), Error);
}

TEST(ChatTemplate, BuiltInDeepSeekV32CallsTools) {
  const ChatTemplate chat = ChatTemplate::built_in("deepseek_v32");
  const std::string calls =
      R"([{"function": {"name": "f", "arguments": "{\"city\": \"北京\", \"n\": [1, null]}"}}, {"function": {"name": "g", "arguments": {}}}])";
  RenderOptions options;
  options.extra = R"({"thinking": true})";
  const std::vector<Message> messages{says("user", "q"), {"assistant", "", "hm", calls, "", ""}, says("tool", "1"), says("tool", "2")};
  EXPECT_EQ(chat.render(messages, options), R"(<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜><think>hm</think>

<｜DSML｜function_calls>
<｜DSML｜invoke name="f">
<｜DSML｜parameter name="city" string="true">北京</｜DSML｜parameter>
<｜DSML｜parameter name="n" string="false">[1, null]</｜DSML｜parameter>
</｜DSML｜invoke>
<｜DSML｜invoke name="g">

</｜DSML｜invoke>
</｜DSML｜function_calls><｜end▁of▁sentence｜>

<function_results>
<result>1</result>
<result>2</result>
</function_results>

<think>)");
  options.tools = R"([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])";
  const std::string text = chat.render({messages.begin(), messages.begin() + 1}, options);
  EXPECT_THAT(text, AllOf(HasSubstr("<｜begin▁of▁sentence｜>\n\n## Tools\n"),
                          HasSubstr("\n<functions>\n{\"name\": \"f\", \"parameters\": {\"type\": \"object\"}}\n</functions>\n<｜User｜>q"),
                          HasSubstr("\n<｜DSML｜invoke name=\"$FUNCTION_NAME\">\n<｜DSML｜parameter name=\"$PARAMETER_NAME\" "
                                    "string=\"true|false\">$PARAMETER_VALUE</｜DSML｜parameter>\n")));
  EXPECT_THROW(chat.render(std::vector<Message>{says("user", "q"), says("tool", "1")}, {}), Error);
}

TEST(ChatTemplate, OneTemplateManyRenderings) {
  const ChatTemplate chat = ChatTemplate::parse(chat_ml, "t");
  EXPECT_EQ(chat.source(), chat_ml);
  const std::string once = chat.render(std::vector<Message>{says("user", "a")}, {});
  EXPECT_EQ(chat.render(std::vector<Message>{says("user", "a")}, {}), once);
}

}  // namespace
}  // namespace hadal
