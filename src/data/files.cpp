#include "data/files.h"

#include <glob.h>

#include <algorithm>

#include "core/error.h"

namespace hadal {
namespace fs = std::filesystem;

namespace {

constexpr int64_t held_out = 50;  // one example of so many is for tests

class SplitSource : public Source {
 public:
  SplitSource(std::unique_ptr<Source> all, bool test) : all_(std::move(all)), test_(test) {}
  int64_t size() const override {
    const int64_t tests = all_->size() / held_out;
    return test_ ? tests : all_->size() - tests;
  }
  Example at(int64_t index) const override { return all_->at(test_ ? index * held_out + held_out - 1 : index + index / (held_out - 1)); }
  uint64_t hash() const override { return all_->hash() + (test_ ? 2 : 1); }

 private:
  std::unique_ptr<Source> all_;
  bool test_;
};

std::vector<fs::path> matches_of(const std::string& pattern) {
  glob_t found{};
  std::vector<fs::path> paths;
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0) paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  return paths;
}

}  // namespace

std::vector<fs::path> find_data_files(const std::string& path, const std::string& extension) {
  std::error_code unknown;
  std::vector<fs::path> files;
  if (path.empty()) throw Error("a data source of files needs a path");
  if (fs::is_directory(path, unknown)) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(path))
      if (entry.is_regular_file() && entry.path().extension() == extension) files.push_back(entry.path());
    if (files.empty()) throw Error("{}: expected files that end in {}, found none", path, extension);
  } else if (fs::exists(path, unknown)) {
    files.push_back(path);
  } else if (path.find_first_of("*?") != std::string::npos) {
    files = matches_of(path);
    if (files.empty()) throw Error("{}: no file matches", path);
  } else {
    throw Error("{}: there is no such file or folder", path);
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::unique_ptr<Source> take_split(std::unique_ptr<Source> source, const std::string& split) {
  if (split == "all") return source;
  if (split != "train" && split != "test") throw Error("unknown split \"{}\": expected train, test or all", split);
  auto part = std::make_unique<SplitSource>(std::move(source), split == "test");
  if (part->size() == 0) throw Error("the split \"{}\" is empty: every {}th example is for tests, and there are fewer", split, held_out);
  return part;
}

}  // namespace hadal
