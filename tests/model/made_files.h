// Small checkpoint files made byte by byte, whole and broken, for the tests of checkpoints.
#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "model/checkpoint.h"

namespace hadal::test {

inline std::span<const std::byte> view_of(const std::string& text) { return std::as_bytes(std::span(text)); }

// The message of the Error that `action` must throw.
template <class Action>
std::string error_of(Action&& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.what();
  }
  ADD_FAILURE() << "expected an Error";
  return {};
}

inline std::vector<float> values_of(const StoredTensor& tensor) {
  std::vector<float> values(size_t(tensor.count()));
  to_f32(tensor, 0, tensor.count(), values.data());
  return values;
}

struct Bytes {  // little-endian, grown from left to right
  std::string text;
  template <class T>
  Bytes& put(T value) {
    text.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Bytes& put_text(std::string_view more) { return text += more, *this; }
  Bytes& pad_to(size_t alignment) { return text.resize((text.size() + alignment - 1) / alignment * alignment), *this; }
};

inline std::string floats(const std::vector<float>& values) {
  Bytes bytes;
  for (const float v : values) bytes.put(v);
  return bytes.text;
}

inline std::string safetensors_file(const std::string& header, const std::string& data) {
  return Bytes().put(uint64_t(header.size())).put_text(header).put_text(data).text;
}

// One F32 tensor of [count] in a safetensors file.
inline std::string one_tensor(const std::string& name, const std::vector<float>& values) {
  const std::string header = R"({")" + name + R"(":{"dtype":"F32","shape":[)" + std::to_string(values.size()) + R"(],"data_offsets":[0,)" +
                             std::to_string(4 * values.size()) + "]}}";
  return safetensors_file(header, floats(values));
}

class Folder {  // a temporary folder, removed with all its files
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "hadal_test_XXXXXX").string();
    if (!::mkdtemp(name.data())) throw Error("cannot make {}", name);
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, const std::string& content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace hadal::test
