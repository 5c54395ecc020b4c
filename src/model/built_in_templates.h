// Chat templates of families that publish theirs as a program instead of Jinja.
#pragma once
#include <string_view>

namespace hadal {

// DeepSeek-V3.2, after its encoding_dsv32.py: `thinking` (default false) opens a reply with <think>.
extern const std::string_view deepseek_v32_template;

}  // namespace hadal
