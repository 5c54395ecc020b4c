// Files: mapped for reading, written whole or not at all.
#pragma once
#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <string_view>

namespace hadal {

class MappedFile {  // read-only, private, page cache shared by every process that maps it
 public:
  explicit MappedFile(const std::filesystem::path& path);  // Error: names the path and the reason
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

// The whole file as text. Error when it cannot be read or is longer than `limit` bytes.
std::string read_text(const std::filesystem::path& path, size_t limit = size_t(1) << 30);

// Calls `write` on a temporary file beside `path`, then fsync and rename: `path` holds the old content or the new, never a part.
// Error (disk full, no permission) leaves no temporary file behind.
void write_atomically(const std::filesystem::path& path, const std::function<void(std::ostream&)>& write);

// Held while what is in a folder is changed, by one process at a time; the others wait, and call `waiting` before they do. Error: no such
// folder.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& folder, const std::function<void()>& waiting = {});
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_;
};

}  // namespace hadal
