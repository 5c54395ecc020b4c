// Where a model is, and everything about it that is not weights: a folder in Hugging Face layout, a .gguf file, or a name.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/chat_template.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

namespace hadal {

struct KnownModel {                    // a name that needs no path
  std::string name, repository, note;  // repository: "owner/name" on a hub
  std::string origin() const;          // what brings it here, where it has no repository: "script/run", "hadal"
};
const std::vector<KnownModel>& known_models();

// Models that come with hadal: share/hadal/models beside the program's folder, or models/ of the sources it was built in; empty: neither.
std::filesystem::path shipped_models();
std::filesystem::path cache_folder();  // $HADAL_CACHE, else $XDG_CACHE_HOME/hadal, else ~/.cache/hadal
// A path that exists is itself; otherwise a name in the cache ("owner/name", or a known name), or of a shipped one. Error says what was
// tried and what to do.
std::filesystem::path resolve_model(const std::string& reference);

class ModelSource {
 public:
  explicit ModelSource(const std::filesystem::path& path);  // Error when it is no model
  const std::filesystem::path& path() const { return path_; }
  ModelConfig config() const;
  Checkpoint checkpoint() const;
  Tokenizer tokenizer() const;
  std::optional<ChatTemplate> chat_template() const;  // empty: a base model
  const Gguf* gguf() const { return gguf_.get(); }    // null for a folder
 private:
  std::filesystem::path path_;
  std::shared_ptr<const Gguf> gguf_;  // null for a folder
};

}  // namespace hadal
