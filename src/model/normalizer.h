// Unicode normalisation form C, for the tokenizers that ask for it (Qwen's).
#pragma once
#include <string>
#include <string_view>

namespace hadal {

// `text` (valid UTF-8) in form C. `room` holds the result when it differs; otherwise the text itself is returned.
std::string_view to_nfc(std::string_view text, std::string& room);

}  // namespace hadal
