// Big buffers: anonymous memory on huge pages, zeroed, given back whole.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace hadal {

class Buffer {
 public:
  Buffer() = default;
  Buffer(size_t bytes, const char* purpose);  // Error naming the purpose when the memory is not there
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

size_t physical_memory();   // bytes in the machine, or the limit of this process's control group if lower
size_t available_memory();  // bytes that can be taken without swapping

}  // namespace hadal
