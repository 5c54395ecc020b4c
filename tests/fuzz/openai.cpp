// Any bytes as the body of a request: an Error that can be told as JSON, or a call within its bounds.
#include "serve/openai.h"

#include "core/error.h"
#include "serve/anthropic.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hadal;
  const std::string body(reinterpret_cast<const char*>(data), size);
  const auto within_bounds = [](const Call& call) {
    const Sampling& s = call.sampling;
    return call.max_tokens >= 0 && call.choices >= 1 && call.choices <= 64 && call.logprobs <= 20 && s.temperature >= 0 &&
           s.temperature <= 2;
  };
  const auto attempt = [](const auto& parse) {
    try {
      parse();
    } catch (const ApiError& error) {
      if (error.status != 400 || openai_error(error).empty() || anthropic_error(error).empty()) __builtin_trap();
    }
  };
  for (const Dialect* dialect : {&openai_chat, &openai_text, &openai_responses, &anthropic_messages}) {
    attempt([&] {
      const Call call = dialect->parse(body, {});
      if (call.messages.empty() == call.prompts.empty() || !within_bounds(call)) __builtin_trap();
    });
  }
  attempt([&] { parse_count_call(body); });
  attempt([&] { parse_embedding_call(body); });
  attempt([&] { parse_tokenize_call(body); });
  attempt([&] { parse_tokens(body); });
  return 0;
}
