// Which part of a model a published name belongs to, for reports.
#pragma once
#include <cstdint>
#include <string_view>

namespace hadal {

// In the order in which they are shown.
inline constexpr std::string_view part_names[] = {"embedding", "attention", "dense feed-forward", "experts", "shared experts", "router",
                                                  "norms",     "head",      "draft layers",       "other"};
std::string_view part_of(std::string_view tensor, int64_t layers);

}  // namespace hadal
