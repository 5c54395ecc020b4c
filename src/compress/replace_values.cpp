#include "compress/replace_values.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>

#include "core/error.h"
#include "core/files.h"

namespace hadal {
namespace {
namespace fs = std::filesystem;

struct Patch {
  int64_t offset;
  std::vector<std::byte> bytes;
};

struct Place {
  fs::path file;
  int64_t offset;
};

Place place_of(const StoredTensor& tensor, const Checkpoint& checkpoint, const std::string& name) {
  for (const auto& file : checkpoint.files) {
    const std::span<const std::byte> bytes = file->bytes();
    if (file->path().extension() == ".safetensors" && tensor.data >= bytes.data() && tensor.data < bytes.data() + bytes.size())
      return {file->path(), tensor.data - bytes.data()};
  }
  throw Error("tensor {}: expected it in a .safetensors file, which values can be replaced in", name);
}

Patch patch_of(const StoredTensor& tensor, int64_t offset, const std::string& name, const std::vector<float>& values) {
  if (tensor.count() != int64_t(values.size())) throw Error("tensor {}: expected {} values, found {}", name, values.size(), tensor.count());
  const auto bytes = [&](const auto& typed) {
    const auto raw = std::as_bytes(std::span(typed));
    return Patch{offset, {raw.begin(), raw.end()}};
  };
  if (tensor.strides.empty() && tensor.dtype == DType::f32) return bytes(values);
  if (!tensor.strides.empty() || tensor.dtype != DType::bf16)
    throw Error("tensor {}: expected f32 or bf16, found {}", name, name_of(tensor.dtype));
  std::vector<bf16> narrow(values.size());
  std::ranges::transform(values, narrow.begin(), f32_to_bf16);
  return bytes(narrow);
}

void write_patches(const fs::path& path, const std::vector<Patch>& patches) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (file < 0) throw Error("cannot write {}: {}", path.string(), std::strerror(errno));
  bool whole = true;
  for (const Patch& p : patches) whole = whole && ::pwrite(file, p.bytes.data(), p.bytes.size(), p.offset) == ssize_t(p.bytes.size());
  whole = whole && ::fsync(file) == 0;
  const int reason = errno;
  ::close(file);
  if (!whole) throw Error("cannot write {}: {}", path.string(), std::strerror(reason));
}

struct Temporary {  // a folder that goes away unless it is renamed
  fs::path path;
  ~Temporary() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

}  // namespace

void copy_with_values(const fs::path& source, const Checkpoint& checkpoint, const fs::path& to,
                      const std::map<std::string, std::vector<float>>& values) {
  if (!fs::is_directory(source)) throw Error("{}: expected a folder in Hugging Face layout, found a file", source.string());
  if (fs::exists(to)) throw Error("{}: expected a new folder, found one that exists", to.string());
  std::map<std::string, std::vector<Patch>> patches;  // by file name
  for (const auto& [name, all] : values) {
    const auto tensor = checkpoint.tensors.find(name);
    if (tensor == checkpoint.tensors.end()) throw Error("tensor {}: expected in the checkpoint, found none of that name", name);
    const Place place = place_of(tensor->second, checkpoint, name);
    patches[place.file.filename()].push_back(patch_of(tensor->second, place.offset, name, all));
  }
  const Temporary part{fs::path(to).concat(".part")};
  try {
    fs::create_directories(part.path);
    for (const auto& entry : fs::directory_iterator(source)) {
      if (!entry.is_regular_file() || entry.path().filename() == "quantization.json") continue;
      fs::copy_file(entry.path(), part.path / entry.path().filename());
    }
    for (const auto& [file, changes] : patches) write_patches(part.path / file, changes);
    fs::rename(part.path, to);
  } catch (const fs::filesystem_error& e) {
    throw Error("cannot write {}: {}", to.string(), e.code().message());
  }
}

}  // namespace hadal
