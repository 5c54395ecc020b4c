// Memory from the system, and how much of it there is.
#include "core/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <utility>

#include "core/error.h"

namespace hadal {

Buffer::Buffer(size_t bytes, const char* purpose) : size_(bytes) {
  if (bytes == 0) return;
  // Overcommit would grant what the machine does not have and kill the process later: ask first.
  if (bytes > available_memory())
    throw Error("not enough memory for {}: needs {:.2f} GB, {:.2f} GB are free", purpose, double(bytes) / 1e9,
                double(available_memory()) / 1e9);
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) throw Error("not enough memory for {}: {:.2f} GB refused by the system", purpose, double(bytes) / 1e9);
  data_ = static_cast<std::byte*>(at);
  ::madvise(at, bytes, MADV_HUGEPAGE);
}

Buffer::~Buffer() {
  if (data_) ::munmap(data_, size_);
}

Buffer::Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

size_t physical_memory() {
  size_t bytes = size_t(::sysconf(_SC_PHYS_PAGES)) * size_t(::sysconf(_SC_PAGE_SIZE));
  size_t limit = 0;
  if (std::ifstream("/sys/fs/cgroup/memory.max") >> limit) bytes = std::min(bytes, limit);
  return bytes;
}

size_t available_memory() {
  std::ifstream info("/proc/meminfo");
  for (std::string key; info >> key;) {
    size_t kib = 0;
    if (key == "MemAvailable:" && info >> kib) return std::min(kib * 1024, physical_memory());
  }
  return physical_memory();
}

}  // namespace hadal
