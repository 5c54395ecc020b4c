// tokenizer.json, its configuration and a text, separated by NUL: whatever they hold, only Error may come out, and a text that
// can be encoded has tokens within the vocabulary.
#include <new>
#include <string>
#include <string_view>

#include "core/error.h"
#include "model/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const auto next = [&] {
    const std::string_view part = rest.substr(0, rest.find('\0'));
    rest.remove_prefix(std::min(rest.size(), part.size() + 1));
    return std::string(part);
  };
  const std::string json = next(), config = next();
  const std::string text(rest.substr(0, 4096));
  try {
    const hadal::Tokenizer tokenizer = hadal::Tokenizer::from_json(json, config, "fuzz");
    for (const auto added : {hadal::Tokenizer::Added::match, hadal::Tokenizer::Added::as_text}) {
      const std::vector<int32_t> tokens = tokenizer.encode(text, added);
      for (const int32_t token : tokens) CHECK(token >= 0 && token < tokenizer.size());
      hadal::Utf8Stream stream;
      stream.push(tokenizer.decode(tokens));
      stream.finish();
    }
    tokenizer.find(text);
    tokenizer.bytes(-1);
    tokenizer.bytes(tokenizer.size());
  } catch (const hadal::Error&) {
  }
  return 0;
}
