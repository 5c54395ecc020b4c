// The tokenizer on small vocabularies written here, and on the published ones where they are at hand.
#include "model/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <random>
#include <sstream>
#include <thread>

#include "core/error.h"
#include "core/files.h"
#include "model/unicode.h"

namespace hadal {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Ids = std::vector<int32_t>;

std::string letter_of(int byte) {  // GPT-2's way to write a byte
  int next = 0x100;
  for (int b = 0; b < 256; b++) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    const int point = printable ? b : next++;
    std::string letter;
    append_utf8(uint32_t(point), letter);
    if (b == byte) return letter;
  }
  return "";
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

// The 256 bytes, id = byte, then what the merges make: ab, abc, Ġa, ll, he, hell, hello.
struct Tiny {
  std::string normalizer = "null", pre = R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":true})";
  std::string merges = R"(["a b","ab c","Ġ a",["l","l"],"h e","he ll","hell o"])", added = "[]", post = "null", model = "";
  int bytes = 256;  // how many of them are in the vocabulary

  std::string json() const {
    std::string vocab;
    for (int b = 0; b < bytes; b++) vocab += quoted(letter_of(b)) + ":" + std::to_string(b) + ",";
    vocab += R"("ab":256,"abc":257,"Ġa":258,"ll":259,"he":260,"hell":261,"hello":262)";
    return R"({"added_tokens":)" + added + R"(,"normalizer":)" + normalizer + R"(,"pre_tokenizer":)" + pre + R"(,"post_processor":)" +
           post + R"(,"decoder":{"type":"ByteLevel"},"model":{"type":"BPE",)" + model + R"("vocab":{)" + vocab + R"(},"merges":)" + merges +
           "}}";
  }
  Tokenizer make(const std::string& config = "") const { return Tokenizer::from_json(json(), config, "tiny"); }
  std::string error(const std::string& config = "") const {
    try {
      make(config);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }
};

std::string split_of(const std::string& stages) {
  return R"({"type":"Sequence","pretokenizers":[)" + stages + R"(,{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})";
}

std::string regex_stage(const std::string& pattern) {
  return R"({"type":"Split","pattern":{"Regex":)" + quoted(pattern) + R"(},"behavior":"Isolated","invert":false})";
}

TEST(Tokenizer, MergesLowestRankFirst) {
  const Tokenizer t = Tiny{}.make();
  EXPECT_THAT(t.encode(""), ElementsAre());
  EXPECT_THAT(t.encode("abc"), ElementsAre(257));
  EXPECT_THAT(t.encode("hello abc"), ElementsAre(262, ' ', 257));  // "a b" goes before "Ġ a"
  EXPECT_EQ(t.size(), 263);
}

TEST(Tokenizer, LongPiecesMergeAsShortOnes) {
  const Tokenizer t = Tiny{}.make();
  for (const size_t n : {0, 1, 7, 8, 15, 16, 17, 48, 49, 127, 1000}) {
    std::string text;
    Ids expected;
    for (size_t i = 0; i < n; i++) text += "hello", expected.push_back(262);
    EXPECT_EQ(t.encode(text), expected) << n;
  }
}

TEST(Tokenizer, AnyBytesComeBack) {
  const Tokenizer t = Tiny{}.make();
  std::mt19937 random(1);
  for (const size_t n : {0, 1, 2, 3, 7, 8, 15, 16, 17, 127, 5000}) {
    for (int round = 0; round < 20; round++) {
      std::string text;
      for (size_t i = 0; i < n; i++) text += random() % 2 ? char(random()) : "h\xe4\xbd\xa0"[random() % 4];
      ASSERT_EQ(t.decode(t.encode(text)), text) << n;
    }
  }
}

TEST(Tokenizer, BrokenBytesArePiecesOfTheirOwn) {
  const Tokenizer t = Tiny{}.make();
  EXPECT_THAT(t.encode("a\xff\xfe"), ElementsAre('a', 0xff, 0xfe));
  Tiny few;
  few.bytes = 0xf5;  // as in deepseek-llm, where the bytes that UTF-8 never has are no tokens
  EXPECT_EQ(few.make().decode(few.make().encode("a\xf8z")), "a\xef\xbf\xbdz");
}

TEST(Tokenizer, AddedTokens) {
  Tiny tiny;
  tiny.bytes = 0xf5;  // "ø" would be the byte 0xf8
  tiny.added =
      R"([{"id":263,"content":"<a>","special":true,"normalized":false},{"id":264,"content":"<a>b","special":false,"normalized":false},)"
      R"({"id":265,"content":"ø","special":false,"normalized":true},{"id":266,"content":"<l>","special":false,"lstrip":true,"normalized":false},)"
      R"({"id":270,"content":"<r>","special":false,"rstrip":true,"normalized":false}])";
  const Tokenizer t = tiny.make();
  EXPECT_THAT(t.encode("x<a>y"), ElementsAre('x', 263, 'y'));
  EXPECT_THAT(t.encode("<a>b<a>"), ElementsAre(264, 263));
  EXPECT_THAT(t.encode("<a>", Tokenizer::Added::as_text), ElementsAre('<', 'a', '>'));
  EXPECT_THAT(t.encode("<a>b", Tokenizer::Added::as_text), ElementsAre(264));
  EXPECT_THAT(t.encode("Fø"), ElementsAre('F', 265));
  EXPECT_EQ(t.decode({265}), "ø");
  EXPECT_THAT(t.encode("x \n<l> y"), ElementsAre('x', 266, ' ', 'y'));
  EXPECT_THAT(t.encode("x <r> \xe3\x80\x80y"), ElementsAre('x', ' ', 270, 'y'));
  EXPECT_TRUE(t.is_special(263));
  EXPECT_FALSE(t.is_special(264));
  EXPECT_EQ(t.size(), 271);
  for (const int32_t id : {-1, 267, 269, 271, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(t.bytes(id), "") << id;
    EXPECT_FALSE(t.is_special(id));
  }
  EXPECT_EQ(t.find("<a>"), 263);
  EXPECT_EQ(t.find("hello"), 262);
  EXPECT_EQ(t.find(" a"), 258);
  EXPECT_EQ(t.find("absent"), std::nullopt);
}

TEST(Tokenizer, NormalisesToFormC) {
  Tiny tiny;
  tiny.normalizer = R"({"type":"NFC"})";
  const Tokenizer t = tiny.make();
  EXPECT_EQ(t.decode(t.encode("e\xcc\x81 x\xcc\x81\xcc\xa3")), "\xc3\xa9 x\xcc\xa3\xcc\x81");
  EXPECT_EQ(t.decode(t.encode("\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8")), "각");
  EXPECT_EQ(t.decode(t.encode("각\xe1\x86\xa7")), "각\xe1\x86\xa7");
  EXPECT_EQ(t.decode(t.encode("カ\xe3\x82\x99")), "ガ");
}

TEST(Tokenizer, IgnoreMerges) {
  Tiny tiny;
  tiny.merges = R"(["a b"])";
  EXPECT_THAT(tiny.make().encode("hello"), ElementsAre('h', 'e', 'l', 'l', 'o'));
  tiny.model = R"("ignore_merges":true,)";
  EXPECT_THAT(tiny.make().encode("hello"), ElementsAre(262));
}

TEST(Tokenizer, BeginAndEnd) {
  Tiny tiny;
  tiny.added = R"([{"id":263,"content":"<s>","special":true},{"id":264,"content":"</s>","special":true}])";
  EXPECT_FALSE(tiny.make().adds_begin());
  EXPECT_EQ(tiny.make().begin_token(), std::nullopt);
  const std::string names = R"("bos_token":{"content":"<s>"},"eos_token":"</s>")";
  EXPECT_EQ(tiny.make("{" + names + "}").begin_token(), 263);
  EXPECT_EQ(tiny.make("{" + names + "}").end_token(), 264);
  EXPECT_TRUE(tiny.make("{\"add_bos_token\":true," + names + "}").adds_begin());
  EXPECT_THAT(tiny.error(R"({"add_bos_token":true,"bos_token":"<x>"})"), HasSubstr("add_bos_token"));
  tiny.post = R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],)"
              R"("pair":[],"special_tokens":{"<s>":{"id":"<s>","ids":[263],"tokens":["<s>"]}}})";
  EXPECT_TRUE(tiny.make().adds_begin());
  EXPECT_EQ(tiny.make().begin_token(), 263);
  EXPECT_FALSE(tiny.make(R"({"add_bos_token":false})").adds_begin());
}

TEST(Tokenizer, ErrorsNameTheKey) {
  const auto with = [](auto member, const std::string& value) {
    Tiny tiny;
    tiny.*member = value;
    return tiny.error();
  };
  EXPECT_THAT(with(&Tiny::normalizer, R"({"type":"NFKC"})"),
              HasSubstr("tiny.normalizer.type: expected the normalizer NFC or Sequence, found \"NFKC\""));
  EXPECT_THAT(with(&Tiny::pre, R"({"type":"Whitespace"})"), HasSubstr("tiny.pre_tokenizer.type"));
  EXPECT_THAT(with(&Tiny::pre, "null"), HasSubstr("tiny.pre_tokenizer: absent"));
  EXPECT_THAT(with(&Tiny::pre, R"({"type":"Digits"})"), HasSubstr("ByteLevel as the last"));
  EXPECT_THAT(with(&Tiny::merges, R"(["a"])"), HasSubstr("merges[0]"));
  EXPECT_THAT(with(&Tiny::merges, R"(["a b","x y"])"), HasSubstr("merge 1 joins \"x\" and \"y\", but \"xy\" is not in the vocabulary"));
  EXPECT_THAT(with(&Tiny::merges, R"([["a","b","c"]])"), HasSubstr("merges[0]"));
  EXPECT_THAT(with(&Tiny::added, R"([{"id":5,"content":"<a>"}])"), HasSubstr("added_tokens[0]"));
  EXPECT_THAT(with(&Tiny::added, R"([{"id":7,"content":"abc"}])"), HasSubstr("the id 257 that the vocabulary has"));
  EXPECT_THAT(with(&Tiny::added, R"([{"id":-1,"content":"<a>"}])"), HasSubstr("added_tokens[0].id"));
  EXPECT_THAT(with(&Tiny::added, R"([{"id":400000000,"content":"<a>"}])"), HasSubstr("added_tokens[0].id"));
  EXPECT_THAT(with(&Tiny::added, R"([{"id":263,"content":"<a>","single_word":true}])"), HasSubstr("single_word"));
  EXPECT_THAT(with(&Tiny::model, R"("byte_fallback":true,)"), HasSubstr("byte_fallback"));
  EXPECT_THAT(with(&Tiny::model, R"("dropout":0.5,)"), HasSubstr("dropout"));
  EXPECT_THAT(with(&Tiny::model, R"("end_of_word_suffix":"</w>",)"), HasSubstr("end_of_word_suffix"));
  EXPECT_THROW(Tokenizer::from_json("{", "", "x"), Error);
  EXPECT_THROW(Tokenizer::from_json("[]", "", "x"), Error);
  EXPECT_THROW(Tokenizer::from_json("{}", "[", "x"), Error);
  EXPECT_THROW(Tokenizer::from_folder("/nonexistent"), Error);
}

TEST(Tokenizer, PatternsThatMeanSomethingElseAreErrors) {
  for (const std::string pattern : {"a{,3}", "a{2}+", "a{2}?", R"(\w)", R"(\h)", R"([[:alpha:]])", R"([a&&b])", R"(\p{Han})", R"(\p{Cn})",
                                    R"([\P{L}])", "(*ACCEPT)", "(?x)a", "(", R"(\1)", R"(\)", R"(\pL)", "[]"}) {
    Tiny tiny;
    tiny.pre = split_of(regex_stage(pattern));
    EXPECT_THAT(tiny.error(), HasSubstr("tiny.pre_tokenizer.pretokenizers[0].pattern")) << pattern;
  }
}

TEST(Tokenizer, HostilePatternsEnd) {
  Tiny tiny;
  tiny.pre = split_of(regex_stage("(?:a+)+x"));
  EXPECT_THROW(tiny.make().encode(std::string(100, 'a') + "bx"), Error);
}

TEST(Tokenizer, UnicodeIsThatOfTheTokenizersPackage) {
  Tiny tiny;
  tiny.pre = split_of(regex_stage(R"(\s)"));
  const Tokenizer t = tiny.make();
  EXPECT_EQ(t.encode("a\xe1\xa0\x8e"
                     "b")
                .size(),
            5u);  // U+180E is no white space: one piece, "a" and "b" apart all the same
  tiny.pre = split_of(regex_stage(R"(b\p{L})"));
  EXPECT_EQ(tiny.make().encode("ab\xf0\x96\xb5\x83").size(), 6u);  // U+16D43 (Unicode 16) is a letter: "ab" is cut
  EXPECT_EQ(tiny.make().encode("ab ").size(), 2u);
}

TEST(Tokenizer, OneLongPieceTakesLinearTime) {
  const Tokenizer t = Tiny{}.make();
  std::string text;
  std::mt19937 random(1);
  for (int i = 0; i < 1'000'000; i++) text += "abcheloabcheloxyz"[random() % 17];
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(t.decode(t.encode(text)), text);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));  // a quadratic merge takes minutes, with any compiler
}

TEST(Tokenizer, ThreadsShareIt) {
  const Tokenizer t = Tiny{}.make();
  const Ids expected = t.encode("hello abc 123");
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++)
    threads.emplace_back([&] {
      for (int k = 0; k < 200; k++) EXPECT_EQ(t.encode("hello abc 123"), expected);
    });
  for (auto& thread : threads) thread.join();
}

TEST(Utf8Stream, HoldsBackWhatMayGoOn) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xe4\xbd"), "a");
  EXPECT_EQ(stream.push(""), "");
  EXPECT_EQ(stream.push("\xa0\xf0\x9f"), "你");
  EXPECT_EQ(stream.push("\xa6"), "");
  EXPECT_EQ(stream.push("\x99"), "🦙");
  EXPECT_EQ(stream.push("\xf0\x9f"), "");
  EXPECT_EQ(stream.finish(), "\xef\xbf\xbd");
  EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8Stream, ReplacesAsPythonDoes) {  // what bytes.decode(errors="replace") gives
  const std::string r = "\xef\xbf\xbd";
  const std::pair<std::string, std::string> cases[] = {
      {"\xff\xfe", r + r},
      {"\xe4\xbd"
       "a",
       r + "a"},
      {"\xc0\x80", r + r},
      {"\xed\xa0\x80", r + r + r},
      {"\xf4\x90\x80\x80", r + r + r + r},
      {"\xf0\x9f\xa6"
       "a",
       r + "a"},
      {"\xe0\x80\x80", r + r + r},
      {"\xf0\x80\x80\x80", r + r + r + r},
      {"\x80", r},
      {"\xe4\xe4\xbd\xa0", r + "你"},
  };
  for (const auto& [bytes, expected] : cases) {
    Utf8Stream whole, single;
    EXPECT_EQ(whole.push(bytes) + whole.finish(), expected);
    std::string out;
    for (const char c : bytes) out += single.push(std::string_view(&c, 1));
    EXPECT_EQ(out + single.finish(), expected);
  }
}

std::filesystem::path published() {
  if (const char* set = std::getenv("HADAL_TOKENIZERS")) return set;
  return std::filesystem::path(HADAL_SOURCE).parent_path() / "shared" / "tokenizers";
}

class Published : public testing::TestWithParam<const char*> {};

TEST_P(Published, KnownTokenizations) {
  const auto folder = published() / GetParam();
  if (!std::filesystem::exists(folder / "cases.txt")) GTEST_SKIP() << folder << " is not there; HADAL_TOKENIZERS names another place";
  const Tokenizer t = Tokenizer::from_folder(folder);
  const std::string cases = read_text(folder / "cases.txt"), mark = "\n__ggml_vocab_test__\n";
  std::istringstream ids(read_text(folder / "cases.ids.txt"));
  size_t count = 0;
  for (size_t at = 0, end; at <= cases.size(); at = end + mark.size(), count++) {
    end = std::min(cases.find(mark, at), cases.size());
    const std::string text = cases.substr(at, end - at);
    std::string line;
    std::getline(ids, line);
    std::istringstream numbers(line);
    const Ids expected{std::istream_iterator<int32_t>(numbers), {}};
    EXPECT_EQ(t.encode(text), expected) << "case " << count << ": " << text;
    EXPECT_EQ(t.decode(expected), text);
  }
  EXPECT_GE(count, 46u);
}

INSTANTIATE_TEST_SUITE_P(Files, Published, testing::Values("deepseek-llm", "deepseek-coder"),
                         [](const auto& info) { return std::string(info.param) == "deepseek-llm" ? "llm" : "coder"; });

}  // namespace
}  // namespace hadal
