#include "model/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/error.h"
#include "core/files.h"

namespace hadal {
namespace {

constexpr int64_t data_alignment = 4096;  // of the first tensor, so that alignments inside the data hold in the file
constexpr size_t buffer_bytes = size_t(1) << 20;
constexpr uint64_t first_checksum = 0x6861'6461'6c00'0000;

struct Layout {
  std::string header;            // with its length in front
  std::vector<int64_t> padding;  // bytes before each tensor
  int64_t data = 0;              // bytes behind the header
};

Layout layout_of(const std::vector<PlannedTensor>& tensors) {
  Layout layout;
  nlohmann::ordered_json json;
  json["__metadata__"] = {{"format", "pt"}};
  const auto add = [&](const std::string& name, std::string_view type, const std::vector<int64_t>& shape, int64_t bytes) {
    json[name] = {{"dtype", type}, {"shape", shape}, {"data_offsets", {layout.data, layout.data + bytes}}};
    layout.data += bytes;
  };
  int64_t paddings = 0;
  for (const PlannedTensor& t : tensors) {
    const int64_t padding = -layout.data & (t.alignment - 1);
    layout.padding.push_back(padding);
    // The file's name would make it unique in the whole checkpoint; the first tensor's does so too.
    if (padding > 0) add(fmt::format("padding.{}.{}", tensors.front().name, paddings++), "U8", {padding}, padding);
    add(t.name, name_of(t.dtype), t.shape, t.bytes());
  }
  std::string text = json.dump();
  text.append(size_t(-int64_t(text.size() + 8) & (data_alignment - 1)), ' ');
  const uint64_t length = text.size();
  layout.header.assign(reinterpret_cast<const char*>(&length), 8);
  layout.header += text;
  return layout;
}

// Of words in order; the tail is filled with zeros.
uint64_t add_to_checksum(uint64_t sum, std::span<const std::byte> bytes) {
  for (size_t at = 0; at < bytes.size(); at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, std::min<size_t>(8, bytes.size() - at));
    sum = (std::rotl(sum, 29) ^ word) * 0x9e37'79b9'7f4a'7c15;
  }
  return sum;
}

}  // namespace

int64_t PlannedTensor::bytes() const {
  return bytes_of(dtype, std::accumulate(shape.begin(), shape.end(), int64_t(1), std::multiplies<>()));
}

int64_t safetensors_bytes(const std::vector<PlannedTensor>& tensors) {
  const Layout layout = layout_of(tensors);
  return int64_t(layout.header.size()) + layout.data;
}

SafetensorsWriter::SafetensorsWriter(std::filesystem::path path, const std::vector<PlannedTensor>& tensors)
    : path_(std::move(path)), temporary_(path_), checksum_(first_checksum) {
  temporary_ += ".part";
  Layout layout = layout_of(tensors);
  padding_ = std::move(layout.padding);
  for (const PlannedTensor& t : tensors) sizes_.push_back(t.bytes());
  buffer_.reserve(buffer_bytes);
  file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file_ < 0) throw Error("cannot write {}: {}", temporary_.string(), std::strerror(errno));
  put(std::as_bytes(std::span(layout.header)));
}

SafetensorsWriter::~SafetensorsWriter() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(temporary_.c_str());
}

void SafetensorsWriter::flush() {
  checksum_ = add_to_checksum(checksum_, buffer_);  // always whole words but at the end of the file
  for (size_t at = 0; at < buffer_.size();) {
    const ssize_t count = ::write(file_, buffer_.data() + at, buffer_.size() - at);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) throw Error("cannot write {}: {}", temporary_.string(), count < 0 ? std::strerror(errno) : "nothing was taken");
    at += size_t(count);
  }
  buffer_.clear();
}

void SafetensorsWriter::put(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size(), buffer_bytes - buffer_.size());
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.begin() + std::ptrdiff_t(count));
    bytes = bytes.subspan(count);
    if (buffer_.size() == buffer_bytes) flush();
  }
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  static constexpr std::byte zeros[data_alignment] = {};
  while (!bytes.empty()) {
    while (tensor_ < sizes_.size() && sizes_[tensor_] == 0) ++tensor_;
    CHECK(tensor_ < sizes_.size());
    if (written_ == 0) put({zeros, size_t(padding_[tensor_])});
    const size_t count = std::min(bytes.size(), size_t(sizes_[tensor_] - written_));
    put(bytes.first(count));
    bytes = bytes.subspan(count);
    written_ += int64_t(count);
    if (written_ == sizes_[tensor_]) ++tensor_, written_ = 0;
  }
}

void SafetensorsWriter::finish() {
  while (tensor_ < sizes_.size() && sizes_[tensor_] == 0) ++tensor_;
  CHECK(tensor_ == sizes_.size());
  flush();
  if (::fsync(file_) != 0) throw Error("cannot write {}: {}", temporary_.string(), std::strerror(errno));
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) throw Error("cannot write {}: {}", path_.string(), std::strerror(errno));
  ::close(file_);
  file_ = -1;
}

uint64_t checksum_of(const std::filesystem::path& path) {
  const MappedFile file(path);
  return add_to_checksum(first_checksum, file.bytes());
}

}  // namespace hadal
