// Untrusted bytes: a bounded little-endian cursor, and the checks that every container of tensors shares.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

static_assert(std::endian::native == std::endian::little, "files are little-endian and read in place");

class ByteReader {
 public:
  // `where` names the file in errors and must outlive the reader.
  ByteReader(std::span<const std::byte> bytes, const std::string& where, size_t at = 0) : bytes_(bytes), where_(where), at_(at) {}
  size_t at() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }
  const std::string& where() const { return where_; }

  std::span<const std::byte> take(uint64_t count, std::string_view what) {  // Error: the file ends before
    if (count > left()) truncated(count, what);
    at_ += size_t(count);
    return bytes_.subspan(at_ - size_t(count), size_t(count));
  }
  template <class T>
  T number(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }
  std::string_view text(uint64_t count, std::string_view what) {
    const auto bytes = take(count, what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  [[noreturn]] void truncated(uint64_t count, std::string_view what) const;
  std::span<const std::byte> bytes_;
  const std::string& where_;
  size_t at_;
};

struct Extent {  // bytes [begin, end) of a file, and what they hold
  uint64_t begin, end;
  std::string_view name;
};
// Error when one leaves [0, size) or two overlap; `kind` says what they are, e.g. "tensor".
void check_extents(std::vector<Extent> extents, uint64_t size, std::string_view kind, const std::string& where);

// The product of a shape. Error naming the tensor when a side is negative or the product does not fit.
int64_t count_values(std::span<const int64_t> shape, std::string_view tensor, const std::string& where);

}  // namespace hadal
