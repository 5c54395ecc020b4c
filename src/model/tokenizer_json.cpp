// tokenizer.json as the `tokenizers` package writes it, and what tokenizer_config.json adds.
// What would change the tokens and is not understood is an Error that names the key.
#include <simdjson.h>

#include <map>
#include <unordered_map>

#include "core/error.h"
#include "core/files.h"
#include "model/tokenizer_parts.h"

namespace hadal {

namespace {

using simdjson::dom::element;

constexpr size_t most_stages = 32;

// A value and where it stands, for the messages.
struct Node {
  element value;
  std::string path;

  [[noreturn]] void refuse(std::string_view expected) const {
    std::string found = simdjson::minify(value);
    if (found.size() > 80) found = found.substr(0, 80) + "...";
    throw Error("{}: expected {}, found {}", path, expected, found);
  }
  bool is_null() const { return value.is_null(); }
  simdjson::dom::object object() const {
    if (!value.is_object()) refuse("an object");
    return value.get_object().value_unsafe();
  }
  simdjson::dom::array array() const {
    if (!value.is_array()) refuse("a list");
    return value.get_array().value_unsafe();
  }
  std::string_view text() const {
    if (!value.is_string()) refuse("a string");
    return value.get_string().value_unsafe();
  }
  bool flag() const {
    if (!value.is_bool()) refuse("true or false");
    return value.get_bool().value_unsafe();
  }
  int32_t id() const {
    int64_t number = -1;
    if (value.get_int64().get(number) != simdjson::SUCCESS || number < 0 || number >= most_tokens) refuse("a token id below 4194304");
    return int32_t(number);
  }
  // Absent and null are the same.
  std::optional<Node> find(std::string_view key) const {
    element found;
    if (object().at_key(key).get(found) != simdjson::SUCCESS || found.is_null()) return std::nullopt;
    return Node{found, fmt::format("{}.{}", path, key)};
  }
  Node at(std::string_view key) const {
    if (auto found = find(key)) return *found;
    throw Error("{}.{}: absent", path, key);
  }
  bool flag(std::string_view key, bool otherwise) const {
    const auto found = find(key);
    return found ? found->flag() : otherwise;
  }
  template <class F>
  void each(F&& f) const {
    size_t i = 0;
    for (const element item : array()) f(Node{item, fmt::format("{}[{}]", path, i++)});
  }
};

Node parse(simdjson::dom::parser& parser, const std::string& text, const std::string& path) {
  element root;
  const auto error = parser.parse(text).get(root);
  if (error != simdjson::SUCCESS) throw Error("{}: not valid JSON: {}", path, simdjson::error_message(error));
  return {root, path};
}

void read_normalizer(const Node& node, TokenizerParts& parts) {
  const std::string_view type = node.at("type").text();
  if (type == "NFC")
    parts.nfc = true;
  else if (type == "Sequence")
    node.at("normalizers").each([&](const Node& part) { read_normalizer(part, parts); });
  else
    node.at("type").refuse("the normalizer NFC or Sequence");
}

SplitBehavior read_behavior(const Node& node) {
  const std::string_view name = node.text();
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  node.refuse("Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
}

SplitStage read_split(const Node& node) {
  const Node pattern = node.at("pattern");
  const auto regex = pattern.find("Regex"), literal = pattern.find("String");
  if (!regex && !literal) pattern.refuse("Regex or String");
  const std::string_view text = regex ? regex->text() : literal->text();
  if (text.empty()) pattern.refuse("a pattern that is not empty");
  return {regex ? Regex(text, pattern.path) : Regex::literal(text, pattern.path), read_behavior(node.at("behavior")),
          node.flag("invert", false)};
}

// ByteLevel must be there, and be the last: what follows it would see its alphabet instead of the text.
void read_pre_tokenizer(const Node& node, TokenizerParts& parts, bool& has_byte_level) {
  const std::string_view type = node.at("type").text();
  if (has_byte_level) node.refuse("nothing after ByteLevel");
  if (parts.stages.size() >= most_stages) node.refuse("at most 32 pre-tokenizers");
  if (type == "Sequence") {
    node.at("pretokenizers").each([&](const Node& part) { read_pre_tokenizer(part, parts, has_byte_level); });
  } else if (type == "Split") {
    parts.stages.push_back(read_split(node));
  } else if (type == "Digits") {
    parts.stages.push_back(digits_stage(node.flag("individual_digits", false)));
  } else if (type == "Punctuation") {
    const auto behavior = node.find("behavior");
    parts.stages.push_back(punctuation_stage(behavior ? read_behavior(*behavior) : SplitBehavior::isolated));
  } else if (type == "ByteLevel") {
    has_byte_level = true;
    if (node.flag("add_prefix_space", true)) parts.prepend_space_before = parts.stages.size();
    if (node.flag("use_regex", true)) parts.stages.push_back(gpt2_stage());
  } else {
    node.at("type").refuse("the pre-tokenizer Sequence, Split, Digits, Punctuation or ByteLevel");
  }
}

void read_model(const Node& node, TokenizerParts& parts) {
  if (const auto type = node.find("type"); type && type->text() != "BPE") type->refuse("BPE");
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (const auto affix = node.find(key); affix && !affix->text().empty()) affix->refuse("null or an empty string");
  if (node.flag("byte_fallback", false)) node.at("byte_fallback").refuse("false: bytes are tokens of their own here");
  if (const auto dropout = node.find("dropout")) {
    double chance = 1;
    if (dropout->value.get_double().get(chance) != simdjson::SUCCESS || chance != 0) dropout->refuse("null or 0");
  }
  parts.ignore_merges = node.flag("ignore_merges", false);

  const Node vocab = node.at("vocab");
  size_t strings = 0;
  int64_t largest = -1;
  for (const auto field : vocab.object()) {
    const int32_t id = Node{field.value, vocab.path}.id();
    largest = std::max<int64_t>(largest, id);
    strings++;
  }
  // Ids may have holes, but not so many that a small file asks for much memory.
  if (largest >= int64_t(strings) * 2 + 65536)
    throw Error("{}: the id {} among {} strings; expected ids without large holes", vocab.path, largest, strings);
  parts.written.resize(size_t(largest + 1));
  for (const auto field : vocab.object()) {
    std::string& written = parts.written[size_t(field.value.get_int64().value_unsafe())];
    if (field.key.empty()) throw Error("{}: an empty string is a token", vocab.path);
    if (!written.empty())
      throw Error("{}: \"{}\" and \"{}\" have the same id {}", vocab.path, written, field.key, int64_t(field.value.get_int64()));
    written = field.key;
  }

  const Node merges = node.at("merges");
  size_t number = 0;
  for (const element merge : merges.array()) {
    std::string_view left, right;
    if (merge.is_string()) {
      std::tie(left, right) = split_merge(merge.get_string().value_unsafe(), number, merges.path);
    } else {
      const bool two = merge.is_array() && merge.get_array().value_unsafe().size() == 2;
      if (!two || merge.at(0).get(left) != simdjson::SUCCESS || merge.at(1).get(right) != simdjson::SUCCESS)
        Node{merge, fmt::format("{}[{}]", merges.path, number)}.refuse("\"a b\" or [\"a\", \"b\"]");
    }
    parts.merges.emplace_back(left, right);
    number++;
  }
}

AddedToken read_added_token(const Node& node, int32_t id) {
  if (node.flag("single_word", false)) node.at("single_word").refuse("false");
  return {.id = id,
          .text = std::string(node.at("content").text()),
          .special = node.flag("special", false),
          .normalized = node.flag("normalized", false),
          .takes_left = node.flag("lstrip", false),
          .takes_right = node.flag("rstrip", false)};
}

void read_added_tokens(const Node& root, TokenizerParts& parts, std::map<std::string, int32_t, std::less<>>& ids) {
  const auto list = root.find("added_tokens");
  if (!list) return;
  std::unordered_map<std::string_view, int32_t> in_vocabulary;  // of the added tokens alone: the vocabulary has a hundred times as many
  list->each([&](const Node& node) { in_vocabulary.emplace(node.at("content").text(), -1); });
  for (const auto field : root.at("model").at("vocab").object())
    if (const auto found = in_vocabulary.find(field.key); found != in_vocabulary.end())
      found->second = int32_t(field.value.get_int64().value_unsafe());
  list->each([&](const Node& node) {
    const int32_t id = node.at("id").id();
    if (size_t(id) > parts.written.size() + list->array().size() + 65536) node.at("id").refuse("an id near the vocabulary's");
    AddedToken token = read_added_token(node, id);
    if (token.text.empty()) return;
    const int32_t known = in_vocabulary.at(token.text);
    if (known >= 0 && known != id) node.refuse(fmt::format("the id {} that the vocabulary has", known));
    if (known < 0 && size_t(id) < parts.written.size() && !parts.written[size_t(id)].empty())
      node.refuse(fmt::format("the text \"{}\" that the vocabulary has under this id", parts.written[size_t(id)]));
    ids[token.text] = id;
    parts.added.push_back(std::move(token));
  });
}

// A template that puts a special token before the text makes that the begin token.
void read_post_processor(const Node& node, TokenizerParts& parts) {
  const std::string_view type = node.at("type").text();
  if (type == "Sequence") {
    node.at("processors").each([&](const Node& part) { read_post_processor(part, parts); });
  } else if (type == "TemplateProcessing") {
    element first;
    const Node single = node.at("single");
    if (single.array().at(0).get(first) != simdjson::SUCCESS) return;
    const auto special = Node{first, single.path + "[0]"}.find("SpecialToken");
    if (!special) return;
    const Node ids = node.at("special_tokens").at(special->at("id").text()).at("ids");
    element id;
    if (ids.array().size() != 1 || ids.array().at(0).get(id) != simdjson::SUCCESS) ids.refuse("one id");
    parts.begin = Node{id, ids.path}.id();
    parts.adds_begin = true;
  } else if (type != "ByteLevel") {
    node.at("type").refuse("the post-processor Sequence, TemplateProcessing or ByteLevel");
  }
}

// tokenizer_config.json: its word counts more than the template's, as in `transformers`.
void read_config(const Node& node, const std::map<std::string, int32_t, std::less<>>& ids, TokenizerParts& parts) {
  const auto token = [&](std::string_view key, std::optional<int32_t>& id) {
    const auto value = node.find(key);
    if (!value) return;
    const std::string_view text = value->value.is_object() ? value->at("content").text() : value->text();
    if (const auto known = ids.find(text); known != ids.end()) {
      id = known->second;
      return;
    }
    const auto written = std::find(parts.written.begin(), parts.written.end(), text);
    if (!text.empty() && written != parts.written.end()) id = int32_t(written - parts.written.begin());
  };
  token("bos_token", parts.begin);
  token("eos_token", parts.end);
  if (const auto adds = node.find("add_bos_token")) {
    parts.adds_begin = adds->flag();
    if (parts.adds_begin && !parts.begin) adds->refuse("false, as bos_token is no token of the vocabulary");
  }
}

}  // namespace

Tokenizer Tokenizer::from_json(const std::string& tokenizer_json, const std::string& tokenizer_config, const std::string& where) {
  simdjson::dom::parser parser, config_parser;
  const std::string path = where.empty() ? "tokenizer.json" : where;
  const Node root = parse(parser, tokenizer_json, path);
  TokenizerParts parts;
  if (const auto normalizer = root.find("normalizer")) read_normalizer(*normalizer, parts);
  bool has_byte_level = false;
  const Node pre_tokenizer = root.at("pre_tokenizer");
  read_pre_tokenizer(pre_tokenizer, parts, has_byte_level);
  if (!has_byte_level) pre_tokenizer.refuse("ByteLevel as the last pre-tokenizer");
  if (const auto decoder = root.find("decoder"); decoder && decoder->at("type").text() != "ByteLevel")
    decoder->at("type").refuse("ByteLevel");
  read_model(root.at("model"), parts);
  std::map<std::string, int32_t, std::less<>> added_ids;
  read_added_tokens(root, parts, added_ids);
  if (const auto processor = root.find("post_processor")) read_post_processor(*processor, parts);
  if (!tokenizer_config.empty()) read_config(parse(config_parser, tokenizer_config, path + " (tokenizer_config.json)"), added_ids, parts);
  return Tokenizer(std::move(parts), path + ".model");
}

Tokenizer Tokenizer::from_folder(const std::filesystem::path& folder) {
  const std::filesystem::path config = folder / "tokenizer_config.json";
  return from_json(read_text(folder / "tokenizer.json"), std::filesystem::exists(config) ? read_text(config) : "",
                   (folder / "tokenizer.json").string());
}

}  // namespace hadal
