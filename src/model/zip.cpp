// zip: the directory at the end of the file names the members; each member's own header says where its bytes begin.
#include "model/zip.h"

#include <algorithm>

#include "core/error.h"
#include "model/bytes.h"

namespace hadal {
namespace {

constexpr uint32_t end_mark = 0x06054b50, end64_mark = 0x06064b50, locator64_mark = 0x07064b50, entry_mark = 0x02014b50,
                   member_mark = 0x04034b50;
constexpr size_t end_bytes = 22, locator64_bytes = 20, entry_bytes = 46, longest_comment = 65535;
constexpr uint32_t in_zip64 = 0xffffffff;  // the value proper is in the zip64 field

struct Directory {
  uint64_t entries, begin;
};

size_t find_end(std::span<const std::byte> bytes, const std::string& where) {
  if (bytes.size() >= end_bytes) {
    const size_t last = bytes.size() - end_bytes, first = last - std::min(last, longest_comment);
    for (size_t at = last + 1; at-- > first;)
      if (ByteReader(bytes, where, at).number<uint32_t>("end mark") == end_mark) return at;
  }
  throw Error("{}: expected the directory of a zip archive at the end, found none (truncated, or no zip archive)", where);
}

Directory find_directory(std::span<const std::byte> bytes, const std::string& where) {
  const size_t end = find_end(bytes, where);
  ByteReader in(bytes, where, end);
  in.take(10, "end of the directory");
  Directory directory{in.number<uint16_t>("number of members"), 0};
  in.take(4, "size of the directory");
  directory.begin = in.number<uint32_t>("place of the directory");
  if (directory.begin != in_zip64 && directory.entries != 0xffff) return directory;

  if (end < locator64_bytes) return directory;
  ByteReader locator(bytes, where, end - locator64_bytes);
  if (locator.number<uint32_t>("zip64 locator") != locator64_mark) return directory;
  locator.take(4, "zip64 locator");
  const auto at = locator.number<uint64_t>("zip64 locator");
  if (at > bytes.size()) throw Error("{}: zip64 directory: expected inside the {} bytes of the file, found at {}", where, bytes.size(), at);
  ByteReader end64(bytes, where, size_t(at));
  if (end64.number<uint32_t>("end of the zip64 directory") != end64_mark)
    throw Error("{}: expected the end of a zip64 directory at byte {}", where, at);
  end64.take(28, "end of the zip64 directory");
  directory.entries = end64.number<uint64_t>("number of members");
  end64.take(8, "size of the directory");
  directory.begin = end64.number<uint64_t>("place of the directory");
  return directory;
}

struct Entry {
  std::string name;
  uint64_t packed, unpacked, header;  // bytes in the file, bytes of the member, place of its own header
  uint16_t flags, method;
};

// Numbers that do not fit 32 bits stand in the extra field 1, in this order, each only if needed.
void read_zip64(Entry& entry, std::span<const std::byte> extra, const std::string& where) {
  ByteReader in(extra, where);
  while (in.left() >= 4) {
    const auto id = in.number<uint16_t>("extra field");
    ByteReader field(in.take(in.number<uint16_t>("extra field"), "extra field"), where);
    if (id != 1) continue;
    for (uint64_t* value : {&entry.unpacked, &entry.packed, &entry.header})
      if (*value == in_zip64) *value = field.number<uint64_t>("zip64 field");
    return;
  }
}

Entry read_entry(ByteReader& in) {
  const std::string& where = in.where();
  if (in.number<uint32_t>("a directory entry") != entry_mark)
    throw Error("{}: expected a directory entry of a zip archive at byte {}", where, in.at() - 4);
  Entry entry{};
  in.take(4, "a directory entry");
  entry.flags = in.number<uint16_t>("a directory entry");
  entry.method = in.number<uint16_t>("a directory entry");
  in.take(8, "a directory entry");
  entry.packed = in.number<uint32_t>("a directory entry");
  entry.unpacked = in.number<uint32_t>("a directory entry");
  const auto name = in.number<uint16_t>("a directory entry"), extra = in.number<uint16_t>("a directory entry"),
             comment = in.number<uint16_t>("a directory entry");
  in.take(8, "a directory entry");
  entry.header = in.number<uint32_t>("a directory entry");
  entry.name = in.text(name, "a member's name");
  read_zip64(entry, in.take(extra, "a member's extra field"), where);
  in.take(comment, "a member's comment");
  return entry;
}

std::span<const std::byte> bytes_of_member(std::span<const std::byte> bytes, const Entry& entry, const std::string& where) {
  if (entry.method != 0 || entry.packed != entry.unpacked)
    throw Error("{}: member {} is compressed; expected an archive as torch.save writes it (load it with torch and save it again)", where,
                entry.name);
  if (entry.flags & 1) throw Error("{}: member {} is encrypted", where, entry.name);
  if (entry.header > bytes.size())
    throw Error("{}: member {}: expected inside the {} bytes of the file, found at {}", where, entry.name, bytes.size(), entry.header);
  ByteReader in(bytes, where, size_t(entry.header));
  if (in.number<uint32_t>("a member's header") != member_mark)
    throw Error("{}: member {}: expected its header at byte {}", where, entry.name, entry.header);
  in.take(22, "a member's header");
  const auto name = in.number<uint16_t>("a member's header"), extra = in.number<uint16_t>("a member's header");
  in.take(size_t(name) + extra, "a member's header");
  return in.take(entry.unpacked, "member " + entry.name);
}

}  // namespace

std::map<std::string, std::span<const std::byte>> zip_members(std::span<const std::byte> bytes, const std::string& where) {
  const Directory directory = find_directory(bytes, where);
  if (directory.begin > bytes.size() || directory.entries > (bytes.size() - directory.begin) / entry_bytes)
    throw Error("{}: a zip directory of {} members at byte {} does not fit into {} bytes", where, directory.entries, directory.begin,
                bytes.size());
  ByteReader in(bytes, where, size_t(directory.begin));
  std::map<std::string, std::span<const std::byte>> members;
  std::vector<Extent> extents;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    const Entry entry = read_entry(in);
    const auto content = bytes_of_member(bytes, entry, where);
    const auto [at, is_new] = members.try_emplace(entry.name, content);
    if (!is_new) throw Error("{}: member {} is in the archive twice", where, entry.name);
    const auto begin = uint64_t(content.data() - bytes.data());
    extents.push_back({begin, begin + content.size(), at->first});
  }
  check_extents(std::move(extents), bytes.size(), "member", where);
  return members;
}

}  // namespace hadal
