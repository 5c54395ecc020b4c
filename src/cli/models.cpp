// hadal models, hadal presets: what has a name.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "core/error.h"
#include "model/presets.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

bool is_model_folder(const fs::path& path) { return fs::is_regular_file(path / "config.json"); }

struct Cached {
  std::string name;
  fs::path path;
  int64_t bytes = 0;
};

int64_t bytes_under(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_regular_file(path)) return int64_t(fs::file_size(path, ignored));
  int64_t sum = 0;
  for (const auto& entry : fs::recursive_directory_iterator(path, fs::directory_options::skip_permission_denied, ignored))
    if (entry.is_regular_file(ignored)) sum += int64_t(entry.file_size(ignored));
  return sum;
}

// .gguf files and model folders, at most two folders deep ("owner/name").
void collect(const fs::path& folder, const std::string& prefix, int depth, std::vector<Cached>& found) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = prefix + entry.path().filename().string();
    if (entry.path().extension() == ".gguf" || is_model_folder(entry.path())) {
      found.push_back({name, entry.path(), bytes_under(entry.path())});
    } else if (depth > 0 && entry.is_directory(ignored)) {
      collect(entry.path(), name + "/", depth - 1, found);
    }
  }
}

std::vector<Cached> cached_models() {
  std::vector<Cached> found;
  collect(cache_folder(), "", 2, found);
  std::sort(found.begin(), found.end(), [](const Cached& a, const Cached& b) { return a.name < b.name; });
  return found;
}

bool is_here(const std::string& name) {
  try {
    resolve_model(name);
    return true;
  } catch (const Error&) {
    return false;
  }
}

void show_models(bool json) {
  const std::vector<Cached> cached = cached_models();
  if (json) {
    Json out{{"cache", cache_folder().string()}, {"known", Json::array()}, {"cached", Json::array()}};
    for (const KnownModel& m : known_models())
      out["known"].push_back({{"name", m.name}, {"repository", m.repository}, {"note", m.note}, {"here", is_here(m.name)}});
    for (const Cached& m : cached) out["cached"].push_back({{"name", m.name}, {"path", m.path.string()}, {"bytes", m.bytes}});
    return put(out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  }
  const Style style = output_style();
  put(fmt::format("{}Known by name{}\n", style.bold, style.plain));
  std::vector<std::vector<std::string>> rows{{"name", "here", "comes from", ""}};
  for (const KnownModel& m : known_models())
    rows.push_back({m.name, is_here(m.name) ? "yes" : "no", m.repository.empty() ? m.origin() : "hadal pull " + m.name, m.note});
  put(table(rows, "llll"));
  put(fmt::format("\n{}In {}{}\n", style.bold, cache_folder().string(), style.plain));
  rows = {};
  for (const Cached& m : cached) rows.push_back({m.name, as_bytes(double(m.bytes))});
  put(rows.empty() ? "nothing yet\n" : table(rows, "lr"));
}

void show_presets(bool json) {
  if (json) {
    Json out = Json::array();
    for (const Preset& p : presets()) {
      const ParameterCount count = count_parameters(p.config);
      out.push_back({{"name", p.name},
                     {"repository", p.repository},
                     {"total", count.total},
                     {"active", count.active},
                     {"layers", p.config.layers},
                     {"dim", p.config.dim},
                     {"context", p.config.context}});
    }
    return put(out.dump(2) + "\n");
  }
  std::vector<std::vector<std::string>> rows{{"name", "parameters", "active", "layers", "width", "context", "repository"}};
  for (const Preset& p : presets()) {
    const ParameterCount count = count_parameters(p.config);
    rows.push_back({p.name, with_commas(count.total), with_commas(count.active), std::to_string(p.config.layers), with_commas(p.config.dim),
                    with_commas(p.config.context), p.repository});
  }
  put(table(rows, "lrrrrrl"));
}

}  // namespace

void add_models(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command = add_command(app, "models", "what is known by name and what is in the cache", R"(  hadal models
  HADAL_CACHE=/big/disk hadal models --json)");
  add_json(command, *json);
  command->callback([json] { show_models(*json); });
}

void add_presets(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command = add_command(app, "presets", "published shapes with their parameter counts", R"(  hadal presets
  hadal presets --json
  hadal bench --preset coder-1.3b        a shape with random weights

Draft (multi-token prediction) layers are not counted. Active: what one token touches.)");
  add_json(command, *json);
  command->callback([json] { show_presets(*json); });
}

}  // namespace hadal
