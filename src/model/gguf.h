// GGUF v2 and v3: metadata, and tensors under their published names.
// Source: the GGUF specification in ggml (docs/gguf.md); tensor names from llama.cpp's gguf-py (constants.py).
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/files.h"
#include "model/checkpoint.h"

namespace hadal {

using GgufValue = std::variant<int64_t, double, bool, std::string, std::vector<int64_t>, std::vector<double>, std::vector<std::string>>;

class Gguf {
 public:
  explicit Gguf(const std::filesystem::path& path);  // Error: names the file, what was expected and found
  // A file that is in memory already: `owner` keeps `bytes` alive, `path` is for messages.
  Gguf(std::shared_ptr<const void> owner, std::span<const std::byte> bytes, std::filesystem::path path);
  const std::filesystem::path& path() const { return path_; }
  const std::map<std::string, GgufValue>& metadata() const { return metadata_; }
  const std::map<std::string, StoredTensor>& stored() const { return stored_; }  // under GGUF's own names; shape outermost first

  // Values by key; the second form falls back when the key is absent. Error when the type is another one.
  int64_t integer(const std::string& key) const;
  int64_t integer(const std::string& key, int64_t otherwise) const;
  double real(const std::string& key, double otherwise) const;
  bool flag(const std::string& key, bool otherwise) const;
  const std::string* text(const std::string& key) const;  // null when absent
  const std::vector<std::string>* texts(const std::string& key) const;
  const std::vector<int64_t>* integers(const std::string& key) const;  // an array of booleans reads as 0 and 1
  const std::vector<double>* reals(const std::string& key) const;
  std::string architecture() const;    // general.architecture
  std::string metadata_alone() const;  // a GGUF file of the same metadata without tensors

  // Published names; expert stacks sliced, split kv_b joined. A tensor without a published name keeps its own; rope_freqs
  // is no weight and left out (config_of reads it from stored()). Rows of q and k stay as they are stored.
  Checkpoint checkpoint() const;

 private:
  template <class T>
  const T* find(const std::string& key, const char* expected) const;
  void parse(std::span<const std::byte> bytes);
  std::shared_ptr<const void> owner_;
  std::shared_ptr<const MappedFile> file_;  // null when it was in memory already
  std::filesystem::path path_;
  std::map<std::string, GgufValue> metadata_;
  std::span<const std::byte> head_;  // up to the end of the metadata
  std::map<std::string, StoredTensor> stored_;
};

}  // namespace hadal
