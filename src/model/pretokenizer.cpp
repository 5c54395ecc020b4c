// The pre-tokenizers that files name instead of spelling out.
// Sources: the tokenizer.json of each family; which GGUF name means which is llama.cpp's list (src/llama-vocab.cpp).
#include "model/pretokenizer.h"

#include <algorithm>

#include "core/error.h"
#include "model/unicode_ranges.h"

namespace hadal {

namespace {

constexpr std::string_view gpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view qwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view llama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view deepseek_v3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view east_asian = R"([\x{4e00}-\x{9fa5}\x{0800}-\x{4e00}\x{ac00}-\x{d7ff}]+)";
// The letters with case, as deepseek-llm lists them.
constexpr std::string_view cased_words =
    R"(\s?[A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}\x{295}-\x{2af}\x{370}-\x{373}\x{376}\x{377})"
    R"(\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}\x{38e}-\x{3a1}\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556})"
    R"(\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77})"
    R"(\x{1d79}-\x{1d9a}\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d}\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}\x{1f5d})"
    R"(\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc}\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb})"
    R"(\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107}\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124}\x{2126})"
    R"(\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}\x{2139}\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184}\x{2c00}-\x{2c7b})"
    R"(\x{2c7e}-\x{2ce4}\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}\x{a771}-\x{a787})"
    R"(\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}\x{10400}-\x{1044f})"
    R"(\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2}\x{118a0}-\x{118df}\x{1e900}-\x{1e943}]+)";
constexpr std::string_view ascii_and_wide_marks = R"(\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+)";

SplitStage regex_stage(std::string_view pattern) { return {Regex(pattern, "built-in pre-tokenizer")}; }

template <class... Patterns>
std::vector<SplitStage> stages(Patterns... patterns) {
  std::vector<SplitStage> made;
  (made.push_back(regex_stage(patterns)), ...);
  return made;
}

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

SplitStage gpt2_stage() { return regex_stage(gpt2); }

SplitStage digits_stage(bool individual) {
  std::string numeric = R"([\p{N})";
  for (const auto [first, last] : numeric_not_n) numeric += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", first, last);
  return regex_stage(numeric + (individual ? "]" : "]+"));
}

SplitStage punctuation_stage(SplitBehavior behavior) {
  SplitStage stage = regex_stage(R"([!-/:-@\[-`{-~\p{P}])");
  stage.behavior = behavior;
  return stage;
}

NamedPretokenizer named_pretokenizer(std::string_view name) {
  NamedPretokenizer named;
  if (name == "deepseek-llm") {
    named.stages = stages(R"([\r\n])", cased_words, ascii_and_wide_marks, R"(\s+$)", east_asian);
    named.stages.push_back(digits_stage(true));
  } else if (name == "deepseek-coder") {
    named.stages = stages(R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", east_asian);
    named.stages.push_back(digits_stage(true));
  } else if (name == "deepseek-v3") {
    named.stages = stages(R"(\p{N}{1,3})", R"([\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+)", deepseek_v3);
  } else if (is_one_of(name, {"qwen2", "deepseek-r1-qwen"})) {
    named.stages = stages(qwen2);
    named.nfc = true;
  } else if (is_one_of(name, {"llama-bpe", "llama3", "llama-v3"})) {
    named.stages = stages(llama3);
    named.ignore_merges = named.adds_begin = true;
  } else if (is_one_of(name, {"smollm", "starcoder", "refact", "codeshell"})) {
    named.stages.push_back(digits_stage(true));
    named.stages.push_back(gpt2_stage());
  } else if (is_one_of(name, {"gpt-2", "phi-2", "mpt", "olmo"})) {
    named.stages.push_back(gpt2_stage());
  } else if (name == "default") {
    named.stages = stages(R"([\p{P}\$\+<=>\^~\|]+)", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))",
                          R"(\p{N}+)", "[0-9][0-9][0-9]");
  } else {
    throw Error(
        "tokenizer.ggml.pre: unknown pre-tokenizer {}; expected one of deepseek-llm, deepseek-coder, deepseek-v3, deepseek-r1-qwen, "
        "qwen2, llama-bpe, smollm, gpt-2, default",
        name);
  }
  return named;
}

}  // namespace hadal
