// The checks that every container of tensors shares; see bytes.h.
#include "model/bytes.h"

#include <algorithm>

#include "core/error.h"

namespace hadal {

void ByteReader::truncated(uint64_t count, std::string_view what) const {
  throw Error("{}: truncated: expected {} bytes of {} at byte {}, found {}", where_, count, what, at_, left());
}

void check_extents(std::vector<Extent> extents, uint64_t size, std::string_view kind, const std::string& where) {
  for (const Extent& e : extents)
    if (e.begin > e.end || e.end > size)
      throw Error("{}: {} {}: expected bytes inside [0, {}), found [{}, {})", where, kind, e.name, size, e.begin, e.end);
  std::erase_if(extents, [](const Extent& e) { return e.begin == e.end; });
  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < extents.size(); ++i) {
    const Extent &a = extents[i - 1], &b = extents[i];
    if (b.begin < a.end)
      throw Error("{}: {}s {} and {} overlap: bytes [{}, {}) and [{}, {})", where, kind, a.name, b.name, a.begin, a.end, b.begin, b.end);
  }
}

int64_t count_values(std::span<const int64_t> shape, std::string_view tensor, const std::string& where) {
  int64_t count = 1;
  bool fits = true;
  for (const int64_t side : shape) {
    if (side < 0) throw Error("{}: tensor {}: expected sides of 0 or more, found {}", where, tensor, side);
    fits = fits && !__builtin_mul_overflow(count, side, &count);
  }
  // A count whose bytes overflow is refused as well: no type takes more than 8 bytes per value.
  if (!fits || count > INT64_MAX / 8) throw Error("{}: tensor {}: its shape has more values than any file can hold", where, tensor);
  return count;
}

}  // namespace hadal
