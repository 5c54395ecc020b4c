// A call as whoever answers it reads it.
#include <algorithm>
#include <cctype>

#include "serve/http_server.h"

namespace hadal {

std::string_view HttpCall::header(std::string_view name) const {
  const auto same_letter = [](char a, char b) { return std::tolower(uint8_t(a)) == std::tolower(uint8_t(b)); };
  const auto same = [&](const auto& header) { return std::ranges::equal(header.first, name, same_letter); };
  const auto at = std::ranges::find_if(headers, same);
  return at == headers.end() ? std::string_view() : at->second;
}

}  // namespace hadal
