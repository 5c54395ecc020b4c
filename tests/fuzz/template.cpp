// Any bytes as a template, rendered with a small conversation and tools: a text or an Error, soon and within bounds.
#include "core/error.h"
#include "model/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<hadal::Message> messages{
      {"system", "Be\xff brief.", "", "", "", ""},
      {"user", " Hi, 世界\n", "", "", "", ""},
      {"assistant", "", "<think>", R"([{"type": "function", "function": {"name": "f", "arguments": {"a": [1, 2.5, null, true, "x"]}}}])",
       "", ""},
      {"tool", "42", "", "", "f", "id"},
  };
  static const hadal::RenderOptions options{true, R"([{"function": {"name": "f", "parameters": {"items": {"n": 1e300}}}}])", R"({"n": 3})",
                                            "<s>", "</s>"};
  try {
    hadal::ChatTemplate::parse({reinterpret_cast<const char*>(data), size}, "fuzz").render(messages, options);
  } catch (const hadal::Error&) {
  }
  return 0;
}
