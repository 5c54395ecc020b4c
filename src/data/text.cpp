// Text files as documents.
#include <algorithm>

#include "core/error.h"
#include "core/files.h"
#include "core/random.h"
#include "data/files.h"
#include "model/source.h"
#include "model/unicode.h"

namespace hadal {
namespace {

constexpr size_t longest_document = 8192;  // bytes

// Bytes of the first document of `text`: up to the last paragraph's end that fits, else the last line's, else the last character's.
size_t document_bytes(std::string_view text) {
  if (text.size() <= longest_document) return text.size();
  const std::string_view head = text.substr(0, longest_document);
  for (const std::string_view end : {"\n\n", "\n"})
    if (const size_t at = head.rfind(end); at != std::string_view::npos && at >= longest_document / 4) return at + end.size();
  return valid_utf8_prefix(head);
}

class TextSource : public Source {
 public:
  explicit TextSource(const std::string& path) {
    for (const std::filesystem::path& name : find_data_files(path, ".txt")) {
      files_.push_back(std::make_unique<MappedFile>(name));
      const auto bytes = files_.back()->bytes();
      add({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, name.string());
    }
    if (documents_.empty()) throw Error("{}: there is no text in it", path);
  }
  int64_t size() const override { return int64_t(documents_.size()); }
  Example at(int64_t index) const override {
    Example example;
    example.text = documents_[size_t(index)];
    return example;
  }
  uint64_t hash() const override { return hash_; }

 private:
  void add(std::string_view text, const std::string& name) {
    if (const size_t valid = valid_utf8_prefix(text); valid != text.size()) throw Error("{}: byte {} is not UTF-8", name, valid);
    hash_ = hash_bytes(text, hash_);
    while (!text.empty()) {
      const std::string_view document = text.substr(0, document_bytes(text));
      text.remove_prefix(document.size());
      if (document.find_first_not_of(" \t\r\n") != std::string_view::npos) documents_.push_back(document);
    }
  }
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::vector<std::string_view> documents_;
  uint64_t hash_ = 0;
};

}  // namespace

std::unique_ptr<Source> open_text(const SourceConfig& config) {
  return take_split(std::make_unique<TextSource>(config.path), config.split);
}

std::unique_ptr<Source> open_corpus(const SourceConfig& config) {
  const std::filesystem::path folder = cache_folder() / "corpus" / config.path;
  if (config.path.empty() || !std::filesystem::is_directory(folder))
    throw Error("there is no corpus \"{}\" at {}: run script/corpus, which names those there are", config.path, folder.string());
  return take_split(std::make_unique<TextSource>(folder.string()), config.split);
}

}  // namespace hadal
