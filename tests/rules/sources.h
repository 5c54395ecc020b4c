// The files of the repository, for the tests that read them.
#pragma once
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "core/files.h"

namespace hadal {

struct SourceFile {
  std::string path, folder, extension;  // path from the root; "src/ops/ops.h" is in folder "ops"
  std::string text;
};

// Every file below `root`/`top` with one of the extensions, in order of path.
inline std::vector<SourceFile> sources(const std::string& top, const std::vector<std::string>& extensions) {
  namespace fs = std::filesystem;
  const fs::path root = HADAL_SOURCE;
  std::vector<SourceFile> found;
  if (!fs::exists(root / top)) return found;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root / top)) {
    const std::string extension = entry.path().extension().string();
    if (!entry.is_regular_file() || std::find(extensions.begin(), extensions.end(), extension) == extensions.end()) continue;
    const fs::path path = fs::relative(entry.path(), root);
    found.push_back({path.string(), std::next(path.begin())->string(), extension, read_text(entry.path())});
  }
  std::sort(found.begin(), found.end(), [](const SourceFile& a, const SourceFile& b) { return a.path < b.path; });
  return found;
}

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

}  // namespace hadal
