// Includes only point down, and some libraries have one home (docs/architecture.md, "Folders").
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <set>

#include "sources.h"

namespace hadal {
namespace {

// What each folder of src/, and python/, may include besides itself.
const std::map<std::string, std::set<std::string>>& layers() {
  static const std::map<std::string, std::set<std::string>> table = {
      {"core", {}},
      {"kernels", {}},
      {"ops", {"kernels", "core"}},
      {"model", {"core"}},
      {"data", {"model", "core"}},
      {"infer", {"ops", "model", "core"}},
      {"compress", {"infer", "data", "model", "core"}},
      {"eval", {"infer", "data", "model", "core"}},
      {"plan", {"infer", "model", "kernels", "core"}},
      {"serve", {"infer", "eval", "plan", "model", "core"}},
      {"train", {"data", "model", "kernels", "core"}},
      {"cli", {"serve", "train", "plan", "eval", "compress", "infer", "data", "model", "core"}},
      {"python", {"serve", "train", "plan", "eval", "compress", "infer", "data", "model", "core"}},
  };
  return table;
}

struct Include {
  bool quoted;  // "x" rather than <x>
  std::string path;
};

std::optional<Include> include_of(const std::string& line) {
  size_t at = line.find_first_not_of(" \t");
  if (at == std::string::npos || line[at] != '#') return {};
  at = line.find_first_not_of(" \t", at + 1);
  if (at == std::string::npos || line.compare(at, 7, "include") != 0) return {};
  const size_t open = line.find_first_of("\"<", at);
  if (open == std::string::npos) return {};
  const size_t close = line.find_first_of("\">", open + 1);
  if (close == std::string::npos) return {};
  return Include{line[open] == '"', line.substr(open + 1, close - open - 1)};
}

bool starts_with_any(const std::string& text, const std::vector<std::string>& heads) {
  return std::any_of(heads.begin(), heads.end(), [&](const std::string& head) { return text.starts_with(head); });
}

// Why a file of src/ must not have this include; empty where it may.
std::string objection(const SourceFile& file, const Include& include) {
  if (include.path.find("..") != std::string::npos) return "paths start at src/";
  if (include.quoted) {
    const std::string target = include.path.substr(0, include.path.find('/'));
    const auto layer = layers().find(file.folder);
    if (layer == layers().end()) return "folder " + file.folder + " is not in the table of layers";
    if (target != file.folder && !layer->second.contains(target)) return file.folder + " may not know " + target;
    return "";
  }
  if (layers().contains(include.path.substr(0, include.path.find('/')))) return "our own headers are included with quotes";
  if (starts_with_any(include.path, {"torch/", "ATen/", "c10/"}) && file.folder != "train" && file.folder != "python")
    return "torch lives in src/train, and in python/ for those who bring it";
  if (include.path.ends_with("intrin.h") && file.folder != "kernels") return "instructions live in src/kernels only";
  const bool speaks_formats = file.folder == "model" || file.folder == "data" || file.folder == "serve" || file.folder == "cli";
  if (starts_with_any(include.path, {"nlohmann/", "simdjson", "boost/beast", "boost/asio", "boost/json"}) &&
      (file.extension != ".cpp" || !speaks_formats))
    return "JSON and HTTP libraries live in .cpp files of model, data, serve and cli only";
  if (include.path.starts_with("openssl/") && (file.extension != ".cpp" || (!speaks_formats && file.folder != "infer")))
    return "digests and TLS live in .cpp files of model, infer, serve and cli only";
  return "";
}

TEST(Layers, IncludesPointDown) {
  std::vector<SourceFile> files = sources("src", {".h", ".cpp"});
  ASSERT_GT(files.size(), 40u) << "the sources are not where this test looks";
  for (SourceFile& file : sources("python", {".h", ".cpp"})) {
    file.folder = "python";
    files.push_back(std::move(file));
  }
  int includes = 0;
  for (const SourceFile& file : files) {
    const std::vector<std::string> lines = lines_of(file.text);
    for (size_t i = 0; i < lines.size(); ++i) {
      const std::optional<Include> include = include_of(lines[i]);
      if (!include) continue;
      ++includes;
      const std::string why_not = objection(file, *include);
      EXPECT_TRUE(why_not.empty()) << file.path << ":" << i + 1 << ": includes " << include->path << ": " << why_not;
    }
  }
  EXPECT_GT(includes, 100);
}

TEST(Layers, TheTableHasNoCycle) {
  for (const auto& [folder, below] : layers())
    for (const std::string& target : below) {
      ASSERT_TRUE(layers().contains(target)) << folder << " -> " << target;
      EXPECT_FALSE(layers().at(target).contains(folder)) << folder << " <-> " << target;
      for (const std::string& next : layers().at(target))
        EXPECT_FALSE(layers().at(next).contains(folder)) << folder << " -> " << target << " -> " << next << " -> " << folder;
    }
}

TEST(Layers, TheTestRecognisesWhatItForbids) {
  const auto objects = [](const std::string& folder, const std::string& extension, const std::string& line) {
    return !objection({"", folder, extension, ""}, include_of(line).value()).empty();
  };
  EXPECT_TRUE(objects("kernels", ".cpp", "#include \"core/mat.h\""));
  EXPECT_TRUE(objects("model", ".cpp", "# include \"infer/model.h\""));
  EXPECT_TRUE(objects("infer", ".cpp", "#include <torch/torch.h>"));
  EXPECT_TRUE(objects("data", ".cpp", "#include \"infer/model.h\""));
  EXPECT_TRUE(objects("ops", ".cpp", "#include <immintrin.h>"));
  EXPECT_TRUE(objects("model", ".h", "#include <nlohmann/json.hpp>"));
  EXPECT_TRUE(objects("eval", ".cpp", "  #include <nlohmann/json.hpp>"));
  EXPECT_TRUE(objects("infer", ".cpp", "#include <core/mat.h>"));
  EXPECT_FALSE(objects("model", ".cpp", "#include <nlohmann/json.hpp>"));
  EXPECT_FALSE(objects("kernels", ".cpp", "#include <immintrin.h>"));
  EXPECT_FALSE(objects("infer", ".cpp", "#include \"ops/ops.h\""));
}

}  // namespace
}  // namespace hadal
