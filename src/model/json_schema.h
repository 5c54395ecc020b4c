// What of JSON Schema (draft 2020-12) a constrained reply can keep to: the rest is refused by name, because a keyword that is ignored is a
// promise broken in silence.
#pragma once
#include <string>

namespace hadal {

// The schema with what it leaves open said: an object without properties has any, an array without items has any.
// Error names the place and the keyword.
std::string checked_json_schema(const std::string& text);

}  // namespace hadal
