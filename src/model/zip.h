// The members of a zip archive, in place. An own small reader because tensors are used from the mapped file itself: nothing
// is unpacked, so only members that are stored without compression are accepted. Checksums are not read (that would read every byte).
// Source: PKWARE APPNOTE 6.3, sections 4.3 and 4.5.3 (zip64).
#pragma once
#include <cstddef>
#include <map>
#include <span>
#include <string>

namespace hadal {

std::map<std::string, std::span<const std::byte>> zip_members(std::span<const std::byte> bytes, const std::string& where);

}  // namespace hadal
