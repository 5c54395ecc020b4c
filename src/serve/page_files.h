// The files of web/ as the build found them (embed.cmake writes the table).
#pragma once
#include <span>
#include <string_view>

namespace hadal {

struct PageFile {
  std::string_view path, type, hash, text;  // path: as it is asked for; hash: sha256 of the text
};

std::span<const PageFile> page_files();

}  // namespace hadal
