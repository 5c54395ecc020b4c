#include "model/source.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"

namespace hadal {
namespace {
namespace fs = std::filesystem;

bool present(const fs::path& path) {  // what may not be looked at counts as absent
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::string template_of(const nlohmann::json& value, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) throw Error("{}: chat_template: expected a string or a list of named templates", where);
  for (const auto& entry : value) {
    const bool named = entry.is_object() && entry.contains("name") && entry["name"].is_string() && entry.contains("template") &&
                       entry["template"].is_string();
    if (!named) throw Error("{}: chat_template: expected entries with name and template", where);
    if (entry["name"] == "default") return entry["template"].get<std::string>();
  }
  throw Error("{}: chat_template: expected one named \"default\", found {} others", where, value.size());
}

// The template in tokenizer_config.json; empty where there is none.
std::string template_in(const fs::path& path) {
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(read_text(path, size_t(64) << 20));
  } catch (const nlohmann::json::exception& e) {
    throw Error("{}: expected JSON: {}", path.string(), e.what());
  }
  if (!json.is_object()) throw Error("{}: expected a JSON object", path.string());
  const auto at = json.find("chat_template");
  return at == json.end() || at->is_null() ? "" : template_of(*at, path.string());
}

}  // namespace

ModelSource::ModelSource(const fs::path& path) : path_(path) {
  if (!present(path)) throw Error("there is no model at {}: expected a folder with config.json or a .gguf file", path.string());
  path_ = resolve_model(path.string());
  std::error_code ignored;
  if (fs::is_directory(path_, ignored)) return;
  if (path_.extension() != ".gguf")
    throw Error("{} is no model: expected a .gguf file, or the folder that holds config.json, the tokenizer and the weights",
                path_.string());
  gguf_ = std::make_shared<const Gguf>(path_);
}

ModelConfig ModelSource::config() const { return gguf_ ? config_of(*gguf_) : read_config(path_); }

Checkpoint ModelSource::checkpoint() const { return gguf_ ? gguf_->checkpoint() : open_checkpoint(path_); }

Tokenizer ModelSource::tokenizer() const {
  if (gguf_) return Tokenizer::from_gguf(*gguf_);
  // What `hadal quantize` keeps of a GGUF file: its metadata alone.
  if (const fs::path own = path_ / "tokenizer.gguf"; present(own)) return Tokenizer::from_gguf(Gguf(own));
  return Tokenizer::from_folder(path_);
}

std::optional<ChatTemplate> ModelSource::chat_template() const {
  if (gguf_) {
    const char* key = "tokenizer.chat_template";
    const std::string* text = gguf_->text(key);
    if (!text || text->empty()) return {};
    return ChatTemplate::parse(*text, path_.string() + ": " + key);
  }
  if (const fs::path own = path_ / "chat_template.jinja"; present(own))
    return ChatTemplate::parse(read_text(own, size_t(4) << 20), own.string());
  if (const fs::path beside = path_ / "tokenizer_config.json"; present(beside))
    if (const std::string text = template_in(beside); !text.empty()) return ChatTemplate::parse(text, beside.string() + ": chat_template");
  if (const std::string family = config().family; family == "deepseek_v32") return ChatTemplate::built_in(family);
  return {};
}

}  // namespace hadal
