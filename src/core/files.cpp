// Files over POSIX: mmap for reading; write, fsync and rename for writing.
#include "core/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "core/error.h"

namespace hadal {
namespace fs = std::filesystem;

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw Error("cannot open {}: {}", path.string(), std::strerror(errno));
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    throw Error("cannot map {}: expected a regular file", path.string());
  }
  if (info.st_size > 0) {
    void* at = ::mmap(nullptr, size_t(info.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
    const int reason = errno;
    ::close(fd);
    if (at == MAP_FAILED) throw Error("cannot map {}: {}", path.string(), std::strerror(reason));
    bytes_ = {static_cast<const std::byte*>(at), size_t(info.st_size)};
  } else {
    ::close(fd);
  }
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

std::string read_text(const fs::path& path, size_t limit) {
  const MappedFile file(path);
  if (file.bytes().size() > limit) throw Error("{}: {} bytes, expected at most {}", path.string(), file.bytes().size(), limit);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

void write_atomically(const fs::path& path, const std::function<void(std::ostream&)>& write) {
  std::error_code unknown;
  const fs::file_type type = fs::status(path, unknown).type();
  if (type != fs::file_type::regular && type != fs::file_type::not_found && type != fs::file_type::none)
    throw Error("cannot write {}: expected a regular file or none, found {}", path.string(),
                type == fs::file_type::directory ? "a directory" : "a device, pipe or the like");  // a rename would put an end to it
  fs::path temporary = path;
  temporary += fmt::format(".part-{}", ::getpid());
  const auto give_up = [&](const std::string& reason) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw Error("cannot write {}: {}", path.string(), reason);
  };
  {
    std::ofstream out(temporary, std::ios::binary);
    if (!out) give_up(std::strerror(errno));
    try {
      write(out);
    } catch (const std::exception& e) {
      give_up(e.what());
    }
    out.flush();
    if (!out) give_up(errno ? std::strerror(errno) : "the disk took only a part");
  }
  const int fd = ::open(temporary.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 || ::fsync(fd) != 0) {
    const int reason = errno;
    if (fd >= 0) ::close(fd);
    give_up(std::strerror(reason));
  }
  ::close(fd);
  if (::rename(temporary.c_str(), path.c_str()) != 0) give_up(std::strerror(errno));
}

FolderLock::FolderLock(const std::filesystem::path& folder, const std::function<void()>& waiting)
    : descriptor_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (descriptor_ >= 0 && ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
  if (descriptor_ >= 0 && errno == EWOULDBLOCK) {
    if (waiting) waiting();
    if (::flock(descriptor_, LOCK_EX) == 0) return;
  }
  const int reason = errno;
  if (descriptor_ >= 0) ::close(descriptor_);
  throw Error("cannot lock {}: {}", folder.string(), std::strerror(reason));
}

FolderLock::~FolderLock() { ::close(descriptor_); }

}  // namespace hadal
