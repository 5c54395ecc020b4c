// JSON lines as documents, or as questions with answers.
#include <simdjson.h>

#include "core/error.h"
#include "core/files.h"
#include "core/random.h"
#include "data/files.h"

namespace hadal {
namespace {

class JsonlSource : public Source {
 public:
  explicit JsonlSource(const SourceConfig& config) : config_(config) {
    for (const std::filesystem::path& name : find_data_files(config.path, ".jsonl")) {
      files_.push_back(std::make_unique<MappedFile>(name));
      const auto bytes = files_.back()->bytes();
      add({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    }
    if (lines_.empty()) throw Error("{}: there is no line in it", config.path);
    for (const std::string* field : {&config.text_field, &config.question_field, &config.answer_field}) hash_ = hash_bytes(*field, hash_);
  }
  int64_t size() const override { return int64_t(lines_.size()); }
  uint64_t hash() const override { return hash_; }

  Example at(int64_t index) const override {
    const Line& line = lines_[size_t(index)];
    const std::string where = fmt::format("{}:{}", files_[line.file]->path().string(), line.number);
    simdjson::dom::parser parser;
    simdjson::dom::element value;
    if (const auto failure = parser.parse(line.text.data(), line.text.size()).get(value); failure != simdjson::SUCCESS)
      throw Error("{}: {}", where, simdjson::error_message(failure));
    if (!value.is_object()) throw Error("{}: expected a JSON object", where);
    const auto field = [&](const std::string& name) {
      std::string_view text;
      simdjson::dom::element found;
      if (value.at_key(name).get(found) != simdjson::SUCCESS || found.is_null()) return std::string();
      if (found.get(text) != simdjson::SUCCESS) throw Error("{}: expected a string in the field \"{}\"", where, name);
      return std::string(text);
    };
    Example example;
    example.text = field(config_.text_field);
    example.question = field(config_.question_field);
    example.answer = field(config_.answer_field);
    example.type = field("type");
    example.language = field("language");
    if (simdjson::dom::element messages; value.at_key("messages").get(messages) == simdjson::SUCCESS) {
      if (!example.text.empty() || !example.question.empty())
        throw Error("{}: expected \"messages\" alone, found \"{}\" too", where,
                    example.text.empty() ? config_.question_field : config_.text_field);
      read_talk(messages, where, example);
      return example;
    }
    if (example.question.empty() != example.answer.empty())
      throw Error("{}: expected both \"{}\" and \"{}\", or none of them", where, config_.question_field, config_.answer_field);
    if (example.text.empty() && example.question.empty())
      throw Error("{}: expected the field \"{}\" or \"{}\"", where, config_.text_field, config_.question_field);
    return example;
  }

 private:
  // [{"role": "user", "content": "..."}, {"role": "assistant", ...}, ...], in turn
  static void read_talk(const simdjson::dom::element& messages, const std::string& where, Example& example) {
    std::vector<std::string> contents;
    simdjson::dom::array all;
    if (messages.get(all) != simdjson::SUCCESS) throw Error("{}: expected a list in the field \"messages\"", where);
    for (const simdjson::dom::element& message : all) {
      const std::string_view expected = contents.size() % 2 == 0 ? "user" : "assistant";
      std::string_view role, content;
      const bool read = message["role"].get(role) == simdjson::SUCCESS && message["content"].get(content) == simdjson::SUCCESS;
      if (!read || role != expected || content.empty())
        throw Error("{}: message {}: expected the role \"{}\" and text as content", where, contents.size() + 1, expected);
      contents.emplace_back(content);
    }
    if (contents.empty() || contents.size() % 2 != 0)
      throw Error("{}: expected messages of user and assistant in turn, found {} of them", where, contents.size());
    example.question = contents[0], example.answer = contents[1];
    for (size_t i = 2; i < contents.size(); i += 2) example.more.push_back({contents[i], contents[i + 1]});
  }
  struct Line {
    size_t file, number;  // counted from 1, for the messages
    std::string_view text;
  };
  void add(std::string_view text) {
    hash_ = hash_bytes(text, hash_);
    for (size_t number = 1; !text.empty(); ++number) {
      const std::string_view line = text.substr(0, text.find('\n'));
      text.remove_prefix(std::min(line.size() + 1, text.size()));
      if (line.find_first_not_of(" \t\r") != std::string_view::npos) lines_.push_back({files_.size() - 1, number, line});
    }
  }
  SourceConfig config_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::vector<Line> lines_;
  uint64_t hash_ = 0;
};

}  // namespace

std::unique_ptr<Source> open_jsonl(const SourceConfig& config) { return take_split(std::make_unique<JsonlSource>(config), config.split); }

}  // namespace hadal
