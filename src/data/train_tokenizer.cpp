#include "data/train_tokenizer.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/error.h"
#include "core/files.h"
#include "model/bpe.h"
#include "model/pretokenizer.h"
#include "model/unicode.h"

namespace hadal {
namespace {

using nlohmann::ordered_json;
using Words = std::vector<std::pair<std::string, int64_t>>;

constexpr std::array control_tokens = {"<begin>", "<end>", "<system>", "<user>", "<assistant>"};

constexpr std::string_view chat_template =
    "{{ bos_token }}{% for message in messages %}<{{ message.role }}>{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";

// No merge crosses these pieces. Small models copy a name more easily where it is the same tokens wherever it stands: Chinese characters
// stand alone, and a word takes the space behind it, not the one before: an answer begins like any other word.
constexpr std::string_view chinese_pattern = "[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]";
constexpr std::string_view words_pattern = R"(\p{N}|\p{L}+ ?|\s+|[^\s\p{L}\p{N}]+ ?)";

class WordCounter {
 public:
  void add(std::string_view text) {
    split(chinese_, text, scratch_,
          [&](std::string_view part) { split(words_, part, scratch_, [&](std::string_view word) { ++counts_[std::string(word)]; }); });
  }
  Words sorted() const {
    Words words(counts_.begin(), counts_.end());
    std::sort(words.begin(), words.end());
    return words;
  }

 private:
  SplitStage chinese_{Regex(chinese_pattern, "the tokenizer")}, words_{Regex(words_pattern, "the tokenizer")};
  Regex::Scratch scratch_;
  std::unordered_map<std::string, int64_t> counts_;
};

void count_words(const Source& source, const TokenizerOptions& options, WordCounter& words) {
  const int64_t wanted = std::min(options.examples, source.size());
  int64_t bytes = 0;
  for (int64_t i = 0; i < wanted && bytes < options.bytes; ++i) {
    const std::string text = source.at(source.size() >= endless ? i : int64_t(double(i) / double(wanted) * double(source.size()))).whole();
    if (valid_utf8_prefix(text) != text.size()) throw Error("example {} of the tokenizer's data is not UTF-8", i);
    bytes += int64_t(text.size());
    words.add(text);
  }
}

ordered_json tokenizer_json(const std::vector<LearntMerge>& merges) {
  std::vector<std::string> pieces;  // bytes of each piece
  pieces.reserve(256);
  for (int byte = 0; byte < 256; ++byte) pieces.push_back(std::string(1, char(byte)));
  ordered_json added = ordered_json::array(), vocab = ordered_json::object(), merge_list = ordered_json::array();
  for (const char* token : control_tokens) {
    added.push_back({{"id", added.size()},
                     {"content", token},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
    vocab.push_back({token, vocab.size()});
  }
  for (const auto& [left, right, made] : merges) {
    merge_list.push_back({written_of_bytes(pieces[size_t(left)]), written_of_bytes(pieces[size_t(right)])});
    if (size_t(made) == pieces.size()) pieces.push_back(pieces[size_t(left)] + pieces[size_t(right)]);
  }
  for (const std::string& piece : pieces) vocab.push_back({written_of_bytes(piece), vocab.size()});
  const ordered_json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  const auto split_by = [](std::string_view pattern) {
    return ordered_json{{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  };
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {split_by(chinese_pattern), split_by(words_pattern), byte_level}}}},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", merge_list}}}};
}

ordered_json tokenizer_config() {
  return {{"add_bos_token", true},
          {"bos_token", control_tokens[0]},
          {"eos_token", control_tokens[1]},
          {"clean_up_tokenization_spaces", false},
          {"tokenizer_class", "PreTrainedTokenizerFast"},
          {"chat_template", chat_template}};
}

}  // namespace

int64_t train_tokenizer(std::span<const Source* const> sources, const std::filesystem::path& folder, const TokenizerOptions& options) {
  constexpr int64_t fewest = 256 + int64_t(control_tokens.size());
  if (options.vocab < fewest) throw Error("a vocabulary of {} tokens: expected at least {}", options.vocab, fewest);
  WordCounter counter;
  for (const Source* source : sources) count_words(*source, options, counter);
  const Words words = counter.sorted();
  if (words.empty()) throw Error("a tokenizer needs text: the data sources give none");
  const int64_t control = int64_t(control_tokens.size());
  const std::vector<LearntMerge> merges = learn_merges(words, options.vocab - control, options.progress);
  const ordered_json tokenizer = tokenizer_json(merges);

  std::filesystem::create_directories(folder);
  const auto write = [&](const char* name, const std::string& text) {
    write_atomically(folder / name, [&](std::ostream& out) { out << text; });
  };
  write("tokenizer.json", tokenizer.dump(1));
  write("tokenizer_config.json", tokenizer_config().dump(1));
  write("chat_template.jinja", std::string(chat_template));
  return int64_t(tokenizer["model"]["vocab"].size());
}

}  // namespace hadal
