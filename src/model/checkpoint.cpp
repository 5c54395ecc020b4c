// Which files of a folder make the checkpoint, and all their tensors in one map.
#include "model/checkpoint.h"

#include <simdjson.h>

#include <algorithm>

#include "core/error.h"
#include "core/files.h"
#include "model/gguf.h"
#include "model/safetensors.h"
#include "model/torch_bin.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

using Tensors = std::map<std::string, StoredTensor>;

constexpr size_t longest_index = size_t(100) << 20;

Tensors parse_file(const MappedFile& file) {
  const fs::path extension = file.path().extension();
  if (extension == ".safetensors") return parse_safetensors(file.bytes(), file.path().string());
  if (extension == ".bin" || extension == ".pt" || extension == ".pth") return parse_torch_bin(file.bytes(), file.path().string());
  throw Error("{}: expected a name that ends in .safetensors, .bin, .pt, .pth or .gguf", file.path().string());
}

// All tensors of `files`; a name that is in two of them is an Error. Also says which file each tensor came from.
Checkpoint read_files(const std::vector<fs::path>& files, std::map<std::string, fs::path>* home) {
  Checkpoint checkpoint;
  std::map<std::string, fs::path> homes;
  for (const fs::path& path : files) {
    const auto file = std::make_shared<const MappedFile>(path);
    for (auto& [name, tensor] : parse_file(*file)) {
      const auto [at, is_new] = homes.try_emplace(name, path);
      if (!is_new) throw Error("tensor {} is in two files: {} and {}", name, at->second.string(), path.string());
      checkpoint.tensors.emplace(name, std::move(tensor));
    }
    checkpoint.files.push_back(file);
    checkpoint.bytes.push_back(file);
  }
  if (home) *home = std::move(homes);
  return checkpoint;
}

bool is_there(const fs::path& path) {  // false also for what the system refuses to look at
  std::error_code ignored;
  return fs::exists(path, ignored);
}

using WeightMap = std::map<std::string, std::string>;  // tensor -> file name

WeightMap read_index(const fs::path& path) {
  const std::string where = path.string();
  const simdjson::padded_string text(read_text(path, longest_index));
  simdjson::dom::parser parser;
  simdjson::dom::object root, entries;
  if (const auto broken = parser.parse(text).get(root))
    throw Error("{}: expected a JSON object: {}", where, simdjson::error_message(broken));
  if (root["weight_map"].get(entries)) throw Error("{}: expected an object under \"weight_map\"", where);
  WeightMap map;
  for (const auto [tensor, value] : entries) {
    std::string_view file;
    if (value.get(file)) throw Error("{}: tensor {}: expected a file name", where, tensor);
    if (file.empty() || file == "." || file == ".." || file.find('/') != file.npos || file.find('\0') != file.npos)
      throw Error("{}: tensor {}: expected the name of a file in the same folder, found \"{}\"", where, tensor, file);
    if (!map.try_emplace(std::string(tensor), file).second) throw Error("{}: tensor {} is in weight_map twice", where, tensor);
  }
  if (map.empty()) throw Error("{}: expected at least one tensor under \"weight_map\"", where);
  return map;
}

std::vector<fs::path> files_of(const fs::path& index, const WeightMap& map) {
  std::vector<fs::path> files;
  for (const auto& [tensor, file] : map) files.push_back(index.parent_path() / file);
  std::sort(files.begin(), files.end());
  files.erase(std::unique(files.begin(), files.end()), files.end());
  return files;
}

Checkpoint read_indexed(const fs::path& index, const WeightMap& map) {
  for (const auto& [tensor, file] : map)
    if (!is_there(index.parent_path() / file))
      throw Error("{}: tensor {} is expected in {}, which is not there (download incomplete?)", index.string(), tensor, file);
  std::map<std::string, fs::path> home;
  Checkpoint checkpoint = read_files(files_of(index, map), &home);
  for (const auto& [tensor, file] : map) {
    const auto found = home.find(tensor);
    if (found == home.end()) throw Error("{}: tensor {} is expected in {}, which has no such tensor", index.string(), tensor, file);
    if (found->second.filename() != file)
      throw Error("{}: tensor {} is expected in {}, found in {}", index.string(), tensor, file, found->second.filename().string());
  }
  return checkpoint;
}

// Files of `folder` that end in `extension`, those that start with `start` if there are any: a folder may hold
// consolidated.safetensors or training_args.bin beside the model.
std::vector<fs::path> list(const fs::path& folder, std::string_view extension, std::string_view start) {
  std::vector<fs::path> all, named;
  std::error_code refused, ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, refused)) {
    if (entry.path().extension() != extension || !entry.is_regular_file(ignored)) continue;
    all.push_back(entry.path());
    if (entry.path().filename().string().starts_with(start)) named.push_back(entry.path());
  }
  if (refused) throw Error("cannot list {}: {}", folder.string(), refused.message());
  std::vector<fs::path>& chosen = named.empty() ? all : named;
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

Checkpoint open_folder(const fs::path& folder) {
  const fs::path index = folder / "model.safetensors.index.json", bin_index = folder / "pytorch_model.bin.index.json";
  if (is_there(index)) return read_indexed(index, read_index(index));
  if (const auto files = list(folder, ".safetensors", "model"); !files.empty()) return read_files(files, nullptr);
  const fs::path single = folder / "pytorch_model.bin";
  if (is_there(bin_index)) {
    const WeightMap map = read_index(bin_index);
    const auto files = files_of(bin_index, map);
    const bool stale = std::none_of(files.begin(), files.end(), [](const fs::path& f) { return is_there(f); });
    if (!stale || !is_there(single)) return read_indexed(bin_index, map);
    return read_files({single}, nullptr);  // some published folders kept the index of an older upload
  }
  if (const auto files = list(folder, ".bin", "pytorch_model"); !files.empty()) return read_files(files, nullptr);
  throw Error("{}: expected weights (*.safetensors or pytorch_model*.bin), found none", folder.string());
}

}  // namespace

int64_t StoredTensor::count() const {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  return count;
}

Checkpoint open_checkpoint(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return open_folder(path);
  if (path.extension() == ".gguf") return Gguf(path).checkpoint();
  return read_files({path}, nullptr);
}

}  // namespace hadal
