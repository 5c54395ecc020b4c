// Models by name: which are known, where they are kept, and what a reference means.
#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "core/error.h"
#include "model/source.h"

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

}  // namespace

const std::vector<KnownModel>& known_models() {
  static const std::vector<KnownModel> all = {
      {"nano-v1", "", "dense, with recurrence: answers questions about small worlds, in English and Chinese"},
      {"nano-v2", "", "the same by experts in balance and latent attention"},
      {"nano-v2-student", "", "small: learnt from nano-v2"},
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

std::string KnownModel::origin() const { return !repository.empty() ? "" : name == "smollm2" ? "script/run" : "hadal"; }

fs::path shipped_models() {
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  for (const fs::path& folder : {program / "../share/hadal/models", program / "../../models"})
    if (is_folder(folder)) return folder.lexically_normal();
  return {};
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
  if (known && known->origin() == "hadal") {
    if (const fs::path shipped = shipped_models() / name; is_folder(shipped)) return model_in(shipped);
    throw Error("the model {} comes with hadal and was not found beside the program; `script/train-shipped {}` makes it", name, name);
  }
  if (known && known->repository.empty())
    throw Error("the model {} is not installed: tried {}; `script/run` fetches it", reference, cached.string());
  const bool repository = name.find('/') != std::string::npos;
  throw Error("there is no model \"{}\": tried the path and {}; {}", reference, cached.string(),
              repository ? fmt::format("`hadal pull {}` fetches it from a hub", name)
                         : "`hadal models` lists the names, `hadal pull owner/name` fetches another");
}

}  // namespace hadal
