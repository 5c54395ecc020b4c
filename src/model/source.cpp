#include "model/source.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
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
bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

// "name", "owner/name" or "owner/name/file": parts that cannot lead out of the cache folder.
bool is_name(const std::string& reference) {
  if (reference.empty() || reference.size() > 300 || reference.front() == '/' || reference.back() == '/') return false;
  const auto allowed = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.' || c == '/'; };
  if (!std::all_of(reference.begin(), reference.end(), allowed)) return false;
  const fs::path path(reference);
  return std::none_of(path.begin(), path.end(), [](const fs::path& part) { return part == "." || part == ".." || part.empty(); });
}

const KnownModel* known_model(const std::string& name) {
  const auto& all = known_models();
  const auto at = std::find_if(all.begin(), all.end(), [&](const KnownModel& m) { return m.name == name; });
  return at == all.end() ? nullptr : &*at;
}

// The model inside a folder: the folder itself in Hugging Face layout, else its only .gguf file.
fs::path model_in(const fs::path& folder) {
  if (present(folder / "config.json")) return folder;
  std::vector<std::string> names;
  std::error_code failure;
  for (auto entry = fs::directory_iterator(folder, failure); !failure && entry != fs::directory_iterator(); entry.increment(failure))
    if (entry->path().extension() == ".gguf") names.push_back(entry->path().filename().string());
  if (failure) throw Error("cannot read the folder {}: {}", folder.string(), failure.message());
  if (names.size() == 1) return folder / names.front();
  if (names.empty()) throw Error("{} holds no model: expected config.json or a .gguf file", folder.string());
  std::sort(names.begin(), names.end());
  throw Error("{} holds {} .gguf files: name one of them, for example {}", folder.string(), names.size(),
              (folder / names.front()).string());
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

const std::vector<KnownModel>& known_models() {
  static const std::vector<KnownModel> all = {
      {"smollm2", "", "SmolLM2-135M-Instruct, 92 MB: small, quick, general; installed by script/run"},
      {"r1-distill-qwen-1.5b", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "3.6 GB: reasoning"},
      {"r1-distill-qwen-7b", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "15.2 GB: reasoning"},
      {"r1-distill-llama-8b", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "16.1 GB: reasoning"},
      {"r1-0528-qwen3-8b", "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "16.4 GB: reasoning"},
      {"r1-distill-qwen-14b", "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", "29.5 GB: reasoning"},
      {"coder-1.3b", "deepseek-ai/deepseek-coder-1.3b-instruct", "2.7 GB: code"},
      {"coder-6.7b", "deepseek-ai/deepseek-coder-6.7b-instruct", "13.5 GB: code"},
      {"coder-7b-v1.5", "deepseek-ai/deepseek-coder-7b-instruct-v1.5", "13.8 GB: code"},
      {"coder-v2-lite", "deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct", "31.4 GB, 2.4 billion parameters active: code"},
      {"v2-lite", "deepseek-ai/DeepSeek-V2-Lite-Chat", "31.4 GB, 2.4 billion parameters active: general"},
      {"moe-16b", "deepseek-ai/deepseek-moe-16b-chat", "32.8 GB, 2.6 billion parameters active: general"},
      {"llm-7b", "deepseek-ai/deepseek-llm-7b-chat", "13.8 GB: general"},
      {"math-7b", "deepseek-ai/deepseek-math-7b-instruct", "13.8 GB: mathematics"},
  };
  return all;
}

fs::path cache_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return fs::path(value ? value : "");
  };
  if (const fs::path folder = variable("HADAL_CACHE"); !folder.empty()) return folder;
  if (const fs::path folder = variable("XDG_CACHE_HOME"); !folder.empty()) return folder / "hadal";
  if (const fs::path folder = variable("HOME"); !folder.empty()) return folder / ".cache" / "hadal";
  throw Error("there is no folder for models: expected HADAL_CACHE or HOME in the environment, found neither");
}

fs::path resolve_model(const std::string& reference) {
  if (!reference.empty() && present(reference)) return is_folder(reference) ? model_in(reference) : fs::path(reference);
  const KnownModel* known = known_model(reference);
  if (!known && !is_name(reference))
    throw Error("there is no model \"{}\": expected a folder, a .gguf file or a name (see `hadal models`)", reference);

  const std::string name = known && !known->repository.empty() ? known->repository : reference;
  const fs::path cached = cache_folder() / name;
  if (is_folder(cached)) return model_in(cached);
  if (present(cached)) return cached;
  if (known && known->repository.empty())
    throw Error("the model {} is not installed: tried {}; `script/run` fetches it", reference, cached.string());
  const bool repository = name.find('/') != std::string::npos;
  throw Error("there is no model \"{}\": tried the path and {}; {}", reference, cached.string(),
              repository ? fmt::format("`hadal pull {}` fetches it from a hub", name)
                         : "`hadal models` lists the names, `hadal pull owner/name` fetches another");
}

ModelSource::ModelSource(const fs::path& path) : path_(path) {
  if (!present(path)) throw Error("there is no model at {}: expected a folder with config.json or a .gguf file", path.string());
  if (is_folder(path)) {
    path_ = model_in(path);
    if (path_ == path) return;
  }
  if (path_.extension() != ".gguf")
    throw Error("{} is no model: expected a .gguf file, or the folder that holds config.json, the tokenizer and the weights",
                path.string());
  gguf_ = std::make_shared<const Gguf>(path_);
}

ModelConfig ModelSource::config() const { return gguf_ ? config_of(*gguf_) : read_config(path_); }

Checkpoint ModelSource::checkpoint() const { return gguf_ ? gguf_->checkpoint() : open_checkpoint(path_); }

Tokenizer ModelSource::tokenizer() const { return gguf_ ? Tokenizer::from_gguf(*gguf_) : Tokenizer::from_folder(path_); }

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
