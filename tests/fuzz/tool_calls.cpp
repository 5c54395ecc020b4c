// Replies with calls of tools: the first byte says how calls are written and how the text is cut; the pieces are the same cut and whole.
#include "model/tool_calls.h"

#include <cstdlib>

namespace {

std::vector<std::pair<int, std::string>> read(hadal::CallStyle style, std::string_view text, size_t step) {
  hadal::ToolCallParser parser(style);
  std::vector<hadal::ReplyPiece> pieces;
  for (size_t at = 0; at < text.size();) {
    size_t size = std::min(step, text.size() - at);
    while (at + size < text.size() && (uint8_t(text[at + size]) & 0xc0) == 0x80) ++size;  // whole characters come
    parser.push(text.substr(at, size), pieces);
    at += size;
  }
  parser.finish(pieces);
  std::vector<std::pair<int, std::string>> joined;
  for (const hadal::ReplyPiece& piece : pieces) {
    const bool same = !joined.empty() && joined.back().first == int(piece.kind) && piece.kind != hadal::ReplyPiece::Kind::call;
    if (same)
      joined.back().second += piece.text;
    else
      joined.emplace_back(int(piece.kind), piece.text);
  }
  return joined;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1 || size > 1024) return 0;  // what is longer meets the bounds of heads and white space, where the cut matters
  const auto style = hadal::CallStyle(data[0] % 4);
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (read(style, text, 1 + data[0] / 4 % 16) != read(style, text, text.size() + 1)) abort();
  return 0;
}
