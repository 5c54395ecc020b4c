// PCRE2 behind the face of Regex.
#include "model/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/error.h"

namespace hadal {

namespace {

constexpr uint32_t match_limit = 10'000'000, depth_limit = 100'000, heap_limit_kib = 64 << 10;
constexpr size_t stack_first = 32 << 10, stack_limit = 16 << 20;

std::string message_of(int code) {
  PCRE2_UCHAR text[256];
  if (pcre2_get_error_message(code, text, sizeof text) < 0) return fmt::format("PCRE2 error {}", code);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct Regex::Code {
  pcre2_code* compiled = nullptr;
  std::string where;
  ~Code() { pcre2_code_free(compiled); }
};

struct Regex::Scratch::State {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = nullptr;  // made when the 32 KiB of the machine's stack that PCRE2 uses otherwise are too few
  State() {
    if (data == nullptr || context == nullptr) throw std::bad_alloc();
    pcre2_set_match_limit(context, match_limit);
    pcre2_set_depth_limit(context, depth_limit);
    pcre2_set_heap_limit(context, heap_limit_kib);
  }
  ~State() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

Regex::Scratch::Scratch() : state_(std::make_unique<State>()) {}
Regex::Scratch::~Scratch() = default;

Regex::Regex(std::string_view pattern, std::string where) : code_(std::make_unique<Code>()) {
  code_->where = std::move(where);
  const std::string rewritten = to_pcre2(pattern, code_->where);
  const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  int error = 0;
  size_t at = 0;
  code_->compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(rewritten.data()), rewritten.size(), options, &error, &at, nullptr);
  if (code_->compiled == nullptr) throw Error("{}: not a regular expression ({}): {}", code_->where, message_of(error), pattern);
  pcre2_jit_compile(code_->compiled, PCRE2_JIT_COMPLETE);  // where it fails, pcre2_match interprets
}

Regex Regex::literal(std::string_view text, std::string where) {
  std::string escaped;
  for (const char c : text) {
    if (uint8_t(c) < 0x80 && std::ispunct(uint8_t(c))) escaped += '\\';
    escaped += c;
  }
  return Regex(escaped, std::move(where));
}

Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

bool Regex::find(std::string_view text, size_t from, Span& found, Scratch& scratch) const {
  Scratch::State& s = *scratch.state_;
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const auto match = [&] { return pcre2_match(code_->compiled, subject, text.size(), from, PCRE2_NO_UTF_CHECK, s.data, s.context); };
  int result = match();
  if (result == PCRE2_ERROR_JIT_STACKLIMIT && s.stack == nullptr) {
    s.stack = pcre2_jit_stack_create(stack_first, stack_limit, nullptr);
    if (s.stack == nullptr) throw std::bad_alloc();
    pcre2_jit_stack_assign(s.context, nullptr, s.stack);
    result = match();
  }
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0)
    throw Error("{}: this regular expression cannot be matched in bounded time and memory ({})", code_->where, message_of(result));
  const size_t* ends = pcre2_get_ovector_pointer(s.data);
  found = {ends[0], ends[1]};
  return true;
}

}  // namespace hadal
