// Forms of replies: whatever is drawn from the tokens that a matcher leaves has the form, and the engine keeps to it with and without
// guesses.
#include "infer/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <regex>

#include "core/error.h"
#include "infer/engine.h"
#include "infer/grammar_text.h"
#include "infer/model.h"
#include "model/tokenizer.h"
#include "tests/infer/models.h"

namespace hadal {
namespace {

using testing::AnyOf;
using testing::Contains;
using testing::ElementsAre;
using testing::Eq;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;
using Kind = ReplyForm::Kind;

constexpr int64_t vocab = 320;  // more rows than the tokenizer has tokens
constexpr int32_t begin_token = 297, end_token = 299;

const Tokenizer& tokenizer() {
  static const Tokenizer it = Tokenizer::from_folder(HADAL_SOURCE "/tests/golden/llama/model");
  return it;
}

Grammars& grammars() {
  static const std::vector<int32_t> ends{end_token};
  static Grammars it(tokenizer(), vocab, ends);
  return it;
}

std::vector<int32_t> allowed_by(Matcher& matcher) {
  std::vector<float> logits(vocab);
  matcher.mask(logits);
  std::vector<int32_t> tokens;
  for (int32_t id = 0; id < vocab; ++id)
    if (logits[size_t(id)] == 0) tokens.push_back(id);
  return tokens;
}

// A reply drawn evenly from what is allowed; the end is taken as often as any other token.
std::string draw(const ReplyForm& form, std::mt19937& random) {
  Matcher matcher(grammars().compile(form), {});
  std::string text;
  for (int i = 0; i < 3000 && !matcher.finished(); ++i) {
    const std::vector<int32_t> tokens = allowed_by(matcher);
    EXPECT_FALSE(tokens.empty()) << text;
    if (tokens.empty()) return "nothing may come behind: " + text;
    const int32_t token = tokens[random() % tokens.size()];
    if (token == end_token) break;
    EXPECT_FALSE(tokenizer().is_special(token));
    EXPECT_LT(token, tokenizer().size());
    text += tokenizer().bytes(token);
    matcher.accept(token);
  }
  return text;
}

std::string error_of(const ReplyForm& form) {
  try {
    grammars().compile(form);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(GrammarTest, RegularExpressions) {
  std::mt19937 random(1);
  for (const char* pattern : {"[a-c]{3,7}", "(the|that)+ [0-9]{1,3}", "\\d{4}-\\d\\d", "x*", "[^a-z\\n]{2}", "(a|b)?c"}) {
    for (int i = 0; i < 30; ++i) {
      const std::string text = draw({Kind::regex, pattern}, random);
      if (std::string_view(pattern) == "[^a-z\\n]{2}") continue;  // of characters, which std::regex does not know
      EXPECT_TRUE(std::regex_match(text, std::regex(pattern))) << pattern << ": " << text;
    }
  }
}

TEST(GrammarTest, Choices) {
  std::mt19937 random(2);
  const std::vector<std::string> choices{"yes", "no", "the \"thing\"\n", "\\n", "你好"};
  std::set<std::string> seen;
  for (int i = 0; i < 200; ++i) seen.insert(draw(one_of(choices), random));
  EXPECT_EQ(seen, std::set<std::string>(choices.begin(), choices.end()));
}

TEST(GrammarTest, JsonObjects) {
  std::mt19937 random(3);
  for (int i = 0; i < 20; ++i) EXPECT_THAT(draw(any_json_object(), random), StartsWith("{"));
  const std::regex expected(R"re(\{"a": (true|false), "b": -?(0|[1-9][0-9]*), "c": "(x|yy)"\})re");
  const ReplyForm form{Kind::json_schema, R"({"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "integer"},
    "c": {"enum": ["x", "yy"]}}, "required": ["a", "b", "c"]})"};
  for (int i = 0; i < 100; ++i) {
    const std::string text = draw(form, random);
    EXPECT_TRUE(std::regex_match(text, expected)) << text;
  }
}

TEST(GrammarTest, GrammarText) {
  std::mt19937 random(4);
  const ReplyForm form{Kind::ebnf, "root ::= item (\",\" item){2}\nitem ::= [a-z] | \"(\" item \")\""};
  for (int i = 0; i < 50; ++i) {
    const std::string text = draw(form, random);
    EXPECT_EQ(std::ranges::count(text, ','), 2) << text;
    EXPECT_EQ(std::ranges::count(text, '('), std::ranges::count(text, ')')) << text;
  }
}

TEST(GrammarTest, LongRepeatsAreBlocks) {
  EXPECT_EQ(with_short_repeats("root ::= ((a{0, 64} \"a{0, 999}\" [{]))\n"), "root ::= ((a{0, 64} \"a{0, 999}\" [{]))\n");
  EXPECT_EQ(with_short_repeats("root ::= ((a{0, 1000}))\n"), "root ::= ((block_0{0, 30} a{0, 40}))\nblock_0 ::= ((a{32, 32}))\n");
  EXPECT_EQ(with_short_repeats("root ::= ((a{70, -1}))\n"), "root ::= ((block_0{2, 2} a{6, 6} a{0, -1}))\nblock_0 ::= ((a{32, 32}))\n");
  for (const auto& [least, most] :
       std::vector<std::pair<int, int>>{{0, 65}, {0, 95}, {0, 96}, {70, 70}, {3, 129}, {100, 2500}, {2049, 2100}}) {
    const auto grammar = grammars().compile({Kind::regex, fmt::format("a{{{},{}}}", least, most)});
    for (const int length : {0, 1, least - 1, least, least + 1, 64, 65, most - 1, most}) {
      if (length < 0 || length > most) continue;
      Matcher matcher(grammar, {});
      for (int i = 0; i < length; ++i) matcher.accept('a');
      const std::vector<int32_t> allowed = allowed_by(matcher);
      EXPECT_EQ(std::ranges::count(allowed, end_token), length >= least) << length << " of " << least << " to " << most;
      EXPECT_EQ(std::ranges::count(allowed, 'a'), length < most) << length << " of " << least << " to " << most;
    }
  }
}

TEST(GrammarTest, TheEndComesOnlyWhereTheFormIsWhole) {
  Matcher matcher(grammars().compile({Kind::regex, "ab?"}), {});
  EXPECT_THAT(allowed_by(matcher), ElementsAre('a'));
  EXPECT_FALSE(matcher.finished());
  matcher.accept('a');
  EXPECT_THAT(allowed_by(matcher), ElementsAre('b', end_token));
  EXPECT_FALSE(matcher.finished());
  matcher.accept('b');
  EXPECT_TRUE(matcher.finished());
  EXPECT_THAT(allowed_by(matcher), ElementsAre(end_token));
}

TEST(GrammarTest, PiecesOfACharacter) {
  Matcher matcher(grammars().compile(one_of(std::vector<std::string>{"你", "你"})), {});
  for (const int32_t byte : {0xe4, 0xbd}) {
    EXPECT_THAT(allowed_by(matcher), ElementsAre(byte));
    matcher.accept(byte);
  }
  EXPECT_THAT(allowed_by(matcher), ElementsAre(0xa0));  // both end so
}

TEST(GrammarTest, FreeUntilTheTokensHaveCome) {
  Matcher matcher(grammars().compile({Kind::regex, "7"}), {begin_token, '!'});
  for (const int32_t token : {0x41, 0x21, 0x37}) {
    EXPECT_EQ(allowed_by(matcher).size(), size_t(vocab));
    EXPECT_THAT(matcher.forced(9), IsEmpty());
    matcher.accept(token);
  }
  matcher.accept(begin_token);
  EXPECT_EQ(allowed_by(matcher).size(), size_t(vocab));
  matcher.accept('!');
  EXPECT_THAT(allowed_by(matcher), ElementsAre('7'));
}

TEST(GrammarTest, LineBreaksMayFollowReasoning) {
  Matcher matcher(grammars().compile({Kind::regex, "7"}, true), {});
  EXPECT_THAT(allowed_by(matcher), ElementsAre('\n', '7'));
  matcher.accept('\n');
  EXPECT_THAT(allowed_by(matcher), ElementsAre('\n', '7'));
  matcher.accept('\n');
  EXPECT_THAT(allowed_by(matcher), ElementsAre('7'));
}

TEST(GrammarTest, WhatMustComeIsKnown) {
  Matcher matcher(
      grammars().compile({Kind::json_schema, R"({"type": "object", "properties": {"thing": {"type": "integer"}}, "required": ["thing"]})"}),
      {});
  EXPECT_EQ(tokenizer().decode(matcher.forced(100)), "{\"thing\": ");
  EXPECT_EQ(matcher.forced(2).size(), 2u);
  EXPECT_THAT(matcher.forced(0), IsEmpty());
}

TEST(GrammarTest, TheSameFormIsCompiledOnce) {
  const ReplyForm form{Kind::regex, "once"};
  const auto first = grammars().compile(form);
  EXPECT_EQ(grammars().compile(form), first);
  EXPECT_NE(grammars().compile(form, true), first);
  EXPECT_NE(grammars().compile({Kind::ebnf, "root ::= \"once\""}), first);
  EXPECT_EQ(grammars().compile(form), first);
}

TEST(GrammarTest, WhatIsWrongIsNamed) {
  EXPECT_THAT(error_of({Kind::regex, "(a"}), StartsWith("the regular expression: "));
  EXPECT_THAT(error_of({Kind::regex, "a(?=b)"}), StartsWith("the regular expression: "));
  EXPECT_THAT(error_of({Kind::regex, "(a)\\1"}), StartsWith("the regular expression: "));
  EXPECT_THAT(error_of({Kind::ebnf, ""}), StartsWith("the grammar: "));
  EXPECT_THAT(error_of({Kind::ebnf, "root ::= thing"}), HasSubstr("\"thing\" is not defined"));
  EXPECT_THAT(error_of({Kind::ebnf, "start ::= \"a\""}), HasSubstr("root"));
  EXPECT_THAT(error_of({Kind::json_schema, "{"}), HasSubstr("not JSON"));
  EXPECT_THAT(error_of({Kind::json_schema, R"({"type": "object", "properties": {"a": {"type": "array", "items": {"not": {}}}}})"}),
              HasSubstr("$.properties.a.items: the keyword \"not\""));
  EXPECT_THAT(error_of({Kind::json_schema, std::string(300 << 10, ' ')}), HasSubstr("262144 bytes"));
  EXPECT_THAT(error_of({Kind::structural_tag, "{}"}), StartsWith("the structural tag: "));
  EXPECT_THROW(one_of({}), Error);
  EXPECT_THROW(one_of(std::vector<std::string>{"a", ""}), Error);
}

std::string many(const std::string& text, int count, const std::string& between) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text + between;
  return out;
}

// Whatever is sent: an answer or an Error, in bounded time.
TEST(GrammarTest, HostileForms) {
  std::string nested, regex = "a", rules = "root ::= ";
  for (int i = 0; i < 5000; ++i) nested += R"({"items":)", regex = "(" + regex + ")", rules += "(";
  for (const ReplyForm& form : std::vector<ReplyForm>{
           {Kind::json_schema, nested + "{}" + std::string(5000, '}')},
           {Kind::json_schema, R"({"$ref": "#"})"},
           {Kind::json_schema, R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}})"},
           {Kind::json_schema, R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})"},
           {Kind::json_schema, R"({"type": "string", "maxLength": 100000})"},
           {Kind::json_schema, R"({"type": "array", "items": {"type": "string", "minLength": 1000}, "minItems": 1000})"},
           {Kind::json_schema, R"({"type": "string", "maxLength": 100000000000})"},
           {Kind::json_schema, R"({"type": "integer", "minimum": 1e300})"},
           {Kind::json_schema, R"({"type": "integer", "minimum": -3, "maximum": 99999999999999999})"},
           {Kind::json_schema, R"({"type": "number", "minimum": 0.1, "maximum": 1e30})"},
           {Kind::json_schema, R"({"type": "string", "pattern": "(((((a*)*)*)*)*)*$"})"},
           {Kind::regex, regex},
           {Kind::regex, "((a{1,1000}){1,1000}){1,1000}"},
           {Kind::regex, "\xff\xfe"},
           {Kind::regex, std::string("a\0b", 3)},
           {Kind::ebnf, rules},
           {Kind::ebnf, "root ::= a\na ::= a a | \"x\" a \"y\" | b b | \"z\"\nb ::= a b a | [a-z]* b | \"\""},
           {Kind::regex, many(".*", 2000, "a")},
           {Kind::regex, "(a|b)*a(a|b){20}"},
           {Kind::regex, ".{100000,200000}x"},
           {Kind::regex, many("([a-z]*", 300, "|") + "x" + many(")*", 300, "")},
           {Kind::json_schema, "{\"enum\":[" + many("\"abcdefgh", 9999, "\",") + "1]}"},
           {Kind::ebnf, "root ::= root"},
           {Kind::ebnf, "root ::= Token(1000000)"},
           {Kind::ebnf, "root ::= \"a\"{1,100000}"},
           {Kind::ebnf, "\xff\xfe ::= \x80"}}) {
    try {
      Matcher matcher(grammars().compile(form), {});
      std::vector<float> logits(vocab);
      matcher.mask(logits);
    } catch (const Error& e) {
      EXPECT_STRNE(e.what(), "");
    }
  }
}

struct Said {
  std::string text;
  Finish how = Finish::cancelled;
  std::vector<int32_t> tokens;
};

struct Talk {
  std::vector<Said> said;
  DraftFigures drafts;
};

Talk talk(const ReplyForm& form, Drafting drafting, std::vector<int32_t> free_until = {}) {
  ModelConfig config = small_configs()[0].config;
  config.vocab = vocab;
  const Model model = random_model(config, DType::f32, 1);
  Talk result;
  result.said.resize(8);
  Engine engine(model,
                {.cache = DType::f32, .cache_rows = 8 * 256, .max_rows = 128, .prompt_chunk = 64, .drafting = drafting, .draft_gain = 0});
  for (size_t i = 0; i < result.said.size(); ++i) {
    Said& said = result.said[i];
    Request request;
    request.prompt = {int32_t(i), 2, 3};
    request.sampling.temperature = i == 0 ? 0.f : 1.5f;
    request.sampling.seed = i;
    request.max_tokens = 150;
    request.stop_tokens = {end_token};
    request.grammar = grammars().compile(form);
    request.free_until = free_until;
    request.on_token = [&said](const Token& token) {
      said.text += tokenizer().bytes(token.id);
      said.tokens.push_back(token.id);
      return true;
    };
    request.on_finish = [&said](Finish how) { said.how = how; };
    engine.submit(std::move(request));
  }
  while (engine.step()) {
  }
  result.drafts = engine.drafts();
  return result;
}

TEST(ConstrainedReplyTest, HasTheFormAndIsTheSameWithGuesses) {
  const ReplyForm form{Kind::json_schema,
                       R"({"type": "object", "properties": {"thing": {"type": "boolean"}, "other thing": {"enum": [1, 22, 333]}},
    "required": ["thing", "other thing"]})"};
  const Talk plain = talk(form, Drafting::off), guessed = talk(form, Drafting::lookup);
  const std::regex expected(R"(\{"thing": (true|false), "other thing": (1|22|333)\})");
  for (size_t i = 0; i < plain.said.size(); ++i) {
    EXPECT_TRUE(std::regex_match(plain.said[i].text, expected)) << plain.said[i].text;
    EXPECT_EQ(plain.said[i].how, Finish::stop);
    EXPECT_EQ(guessed.said[i].text, plain.said[i].text);
    EXPECT_EQ(guessed.said[i].tokens, plain.said[i].tokens);
  }
  EXPECT_EQ(plain.drafts.drafted, 0);
  EXPECT_GT(guessed.drafts.accepted, 8 * 10) << "what must come is not computed one token at a time";
}

TEST(ConstrainedReplyTest, IsFreeUntilTheTokensHaveCome) {
  int began = 0;
  for (const Said& said : talk({Kind::regex, "77"}, Drafting::lookup, {'e'}).said) {
    const auto at = std::ranges::find(said.tokens, 'e');
    if (at == said.tokens.end()) continue;
    ++began;
    EXPECT_THAT(std::vector(at, said.tokens.end()), ElementsAre('e', '7', '7'));
    EXPECT_EQ(said.how, Finish::stop);
  }
  EXPECT_GT(began, 0);
}

// A vocabulary without the letter that must come: the reply ends as one that was cut off.
TEST(ConstrainedReplyTest, EndsWhereNoTokenFits) {
  const Tokenizer few =
      Tokenizer::from_json(R"({"added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,
    "use_regex":true},"post_processor":null,"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0,"b":1,"c":2},"merges":[]}})",
                           "", "few");
  const std::vector<int32_t> ends{2};
  Grammars of_few(few, vocab, ends);
  Matcher matcher(of_few.compile({Kind::regex, "ad"}), {});
  EXPECT_THAT(allowed_by(matcher), ElementsAre(0));
  matcher.accept(0);
  EXPECT_FALSE(matcher.finished());
  std::vector<float> logits(vocab);
  EXPECT_FALSE(matcher.mask(logits));
}

}  // namespace
}  // namespace hadal
