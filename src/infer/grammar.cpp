// The grammar library behind plain types. Nothing of it leaves this file.
#include "infer/grammar.h"

#include <dlpack/dlpack.h>
#include <xgrammar/compiler.h>
#include <xgrammar/matcher.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <ctime>
#include <future>
#include <limits>
#include <list>
#include <mutex>

#include "core/error.h"
#include "infer/grammar_text.h"
#include "model/json_schema.h"
#include "model/tokenizer.h"
#include "model/tool_calls.h"

namespace {

thread_local std::string warning;  // the latest of this thread

double thread_seconds() {  // that this thread has computed
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

// While it lives, xgrammar's work on this thread may take so many seconds: schemas of a few bytes can ask for hours.
struct TimeLimit {
  explicit TimeLimit(double seconds) { end = thread_seconds() + seconds; }
  ~TimeLimit() { end = std::numeric_limits<double>::infinity(); }
  static thread_local double end;
};
thread_local double TimeLimit::end = std::numeric_limits<double>::infinity();

}  // namespace

// Each byte that xgrammar tries passes here on its way to EarleyParser::Advance (--wrap in CMakeLists.txt): where it can be stopped.
bool advance(void* parser, uint8_t byte, bool flag) asm("__real__ZN8xgrammar12EarleyParser7AdvanceEhb");
bool advance_in_time(void* parser, uint8_t byte, bool flag) asm("__wrap__ZN8xgrammar12EarleyParser7AdvanceEhb");
bool advance_in_time(void* parser, uint8_t byte, bool flag) {
  static thread_local uint32_t steps = 0;
  if (++steps % 64 == 0 && thread_seconds() > TimeLimit::end) throw hadal::Error("it takes too long: expected something simpler");
  return advance(parser, byte, flag);
}

namespace xgrammar {  // built to call these instead of printing (script/xgrammar)
[[noreturn]] void LogFatalImpl(const std::string&, int, const std::string& message);
void LogMessageImpl(const std::string&, int, int, const std::string& message);
void LogFatalImpl(const std::string&, int, const std::string& message) { throw hadal::Error("{}", message); }
void LogMessageImpl(const std::string&, int, int, const std::string& message) { warning = message; }
}  // namespace xgrammar

namespace hadal {
namespace {

constexpr size_t longest_form = 256 << 10;       // bytes
constexpr double longest_compilation = 3;        // seconds of one core
constexpr double longest_mask = 0.25;            // for one token
constexpr size_t most_kept = size_t(256) << 20;  // bytes of compiled grammars
constexpr const char* line_breaks = "root ::= [\\n]{0,2}";

std::string in_grammar_quotes(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (uint8_t(c) >= 0x20)
      out += c;
    else
      out += fmt::format("\\x{:02x}", uint8_t(c));
  }
  return out + '"';
}

// Within the tags of calls: of all special tokens the one that is part of texts.
constexpr std::string_view tag_marker = "｜DSML｜";

// One text for each token; none for those that may never come. Markers come where a form names them: theirs is in no text.
std::vector<std::string> texts_of(const Tokenizer& tokenizer, int64_t vocab) {
  std::vector<std::string> texts(size_t(std::max<int64_t>(vocab, tokenizer.size())));
  for (int32_t id = 0; id < tokenizer.size(); ++id) {
    const std::string_view text = tokenizer.bytes(id);
    if (!tokenizer.is_special(id) || text == tag_marker)
      texts[size_t(id)] = text;
    else if (ToolCallParser::is_marker(text))
      texts[size_t(id)] = fmt::format("\xff{}", id);
  }
  return texts;
}

// As the model was trained to write it: markers as their token, nothing else as a control token.
std::vector<int32_t> spelled(const Tokenizer& tokenizer, std::string_view text) {
  const std::optional<int32_t> marker = tokenizer.find(tag_marker);
  if (!marker) return tokenizer.encode(text, Tokenizer::Added::as_text);
  for (size_t part = tag_marker.size() - 1; part > 0; --part)  // it may go on
    if (text.ends_with(tag_marker.substr(0, part))) text.remove_suffix(part);
  std::vector<int32_t> tokens;
  for (;;) {
    const size_t at = text.find(tag_marker);
    const std::vector<int32_t> before = tokenizer.encode(text.substr(0, at), Tokenizer::Added::as_text);
    tokens.insert(tokens.end(), before.begin(), before.end());
    if (at == text.npos) return tokens;
    tokens.push_back(*marker);
    text.remove_prefix(at + tag_marker.size());
  }
}

xgrammar::Grammar parse(const ReplyForm& form, const xgrammar::TokenizerInfo& tokens) {
  switch (form.kind) {
    case ReplyForm::Kind::json_schema:
      // One way of white space, as Python's json.dumps has it: fewer tokens, and most of those between values are forced.
      return xgrammar::Grammar::FromJSONSchema(checked_json_schema(form.text), false, std::nullopt, std::nullopt, true);
    case ReplyForm::Kind::regex:
      return xgrammar::Grammar::FromRegex(form.text);
    case ReplyForm::Kind::ebnf:
      return xgrammar::Grammar::FromEBNF(form.text);
    case ReplyForm::Kind::structural_tag:
      break;
  }
  const auto made = xgrammar::Grammar::FromStructuralTag(form.text, tokens);
  if (const auto* problem = std::get_if<xgrammar::StructuralTagError>(&made))
    std::visit([](const auto& error) { throw Error("{}", error.what()); }, *problem);
  return std::get<xgrammar::Grammar>(made);
}

// As it is compiled: see grammar_text.h.
xgrammar::Grammar put_right(const xgrammar::Grammar& grammar) {
  const std::string before = grammar.ToString();
  const std::string text = with_short_repeats(with_json_characters(before));
  return text == before ? grammar : xgrammar::Grammar::FromEBNF(text);
}

const char* name_of(ReplyForm::Kind kind) {
  switch (kind) {
    case ReplyForm::Kind::json_schema:
      return "the JSON schema";
    case ReplyForm::Kind::regex:
      return "the regular expression";
    case ReplyForm::Kind::ebnf:
      return "the grammar";
    case ReplyForm::Kind::structural_tag:
      return "the structural tag";
  }
  return "";
}

}  // namespace

// A token's first byte; none: it is no text.
using FirstBytes = std::vector<int16_t>;
constexpr int16_t none = -1;

struct Grammar {
  xgrammar::CompiledGrammar compiled;
  const Tokenizer& tokenizer;
  std::shared_ptr<const FirstBytes> first_bytes;
};

ReplyForm any_json_object() { return {ReplyForm::Kind::json_schema, R"({"type": "object"})"}; }

ReplyForm one_of(std::span<const std::string> choices) {
  if (choices.empty()) throw Error("choices: expected at least one, found none");
  std::string text = "root ::= ";
  for (size_t i = 0; i < choices.size(); ++i) {
    if (choices[i].empty()) throw Error("choices: expected texts, found an empty one at place {}", i);
    text += (i == 0 ? "" : " | ") + in_grammar_quotes(choices[i]);
  }
  return {ReplyForm::Kind::ebnf, text};
}

struct Grammars::State {
  State(const Tokenizer& t, int64_t vocab, std::span<const int32_t> ends)
      : tokenizer(t),
        tokens(texts_of(t, vocab), xgrammar::VocabType::RAW, std::nullopt, std::vector<int32_t>(ends.begin(), ends.end())),
        compiler(tokens, 1, false) {
    FirstBytes first;
    for (const std::string& text : tokens.GetDecodedVocab())
      first.push_back(text.empty() || text[0] == '\xff' ? none : int16_t(uint8_t(text[0])));
    for (const int32_t end : ends) first[size_t(end)] = none;
    first_bytes = std::make_shared<const FirstBytes>(std::move(first));
  }

  std::shared_ptr<const Grammar> compile(const ReplyForm& form, bool after_reasoning) {
    if (form.text.size() > longest_form)
      throw Error("{}: expected at most {} bytes, found {}", name_of(form.kind), longest_form, form.text.size());
    warning.clear();
    const TimeLimit limit(longest_compilation);
    try {
      xgrammar::Grammar grammar = put_right(parse(form, tokens));
      if (after_reasoning) grammar = xgrammar::Grammar::Concat({xgrammar::Grammar::FromEBNF(line_breaks), grammar});
      if (!warning.empty()) throw Error("not supported: {}", warning);
      return std::make_shared<const Grammar>(Grammar{compiler.CompileGrammar(grammar), tokenizer, first_bytes});
    } catch (const std::exception& e) {
      throw Error("{}: {}", name_of(form.kind), e.what());
    }
  }

  using Compiled = std::shared_ptr<const Grammar>;
  struct Entry {
    ReplyForm form;
    bool after_reasoning;
    std::shared_future<Compiled> grammar;  // whoever asks for the same waits for it
  };
  const Tokenizer& tokenizer;
  const xgrammar::TokenizerInfo tokens;
  std::shared_ptr<const FirstBytes> first_bytes;
  xgrammar::GrammarCompiler compiler;
  std::mutex mutex;         // guards what follows
  std::list<Entry> latest;  // the last one used comes first

  // Under the lock.
  void forget_the_oldest() {
    size_t kept = 0;
    for (auto entry = latest.begin(); entry != latest.end(); ++entry) {
      if (entry->grammar.wait_for(std::chrono::seconds(0)) != std::future_status::ready) continue;
      kept += entry->grammar.get()->compiled.MemorySizeBytes();
      if (kept <= most_kept || entry == latest.begin()) continue;
      latest.erase(entry, latest.end());  // who waits for one has it in hand
      return;
    }
  }
};

Grammars::Grammars(const Tokenizer& tokenizer, int64_t vocab, std::span<const int32_t> end_tokens)
    : state_(std::make_unique<State>(tokenizer, vocab, end_tokens)) {}

Grammars::~Grammars() = default;

std::shared_ptr<const Grammar> Grammars::compile(const ReplyForm& form, bool after_reasoning) {
  State& s = *state_;
  std::unique_lock lock(s.mutex);
  const auto same = [&](const State::Entry& e) { return e.form == form && e.after_reasoning == after_reasoning; };
  const auto at = std::ranges::find_if(s.latest, same);
  if (at != s.latest.end()) {
    s.latest.splice(s.latest.begin(), s.latest, at);
    const std::shared_future<State::Compiled> grammar = at->grammar;
    lock.unlock();
    return grammar.get();
  }
  std::promise<State::Compiled> promise;
  s.latest.push_front({form, after_reasoning, promise.get_future().share()});
  lock.unlock();
  State::Compiled compiled;
  try {
    compiled = s.compile(form, after_reasoning);
  } catch (...) {
    lock.lock();
    std::erase_if(s.latest, same);
    lock.unlock();
    promise.set_exception(std::current_exception());
    throw;
  }
  promise.set_value(compiled);
  lock.lock();
  s.forget_the_oldest();
  return compiled;
}

struct Matcher::State {
  State(std::shared_ptr<const Grammar> g, std::vector<int32_t> f)
      : grammar(std::move(g)), free_until(std::move(f)), matcher(grammar->compiled) {
    bits.resize(size_t(xgrammar::GetBitmaskSize(grammar->compiled.GetTokenizerInfo().GetVocabSize())));
    if (!is_free()) guarded([this] { look_ahead(); });
  }

  // A grammar comes from a stranger: where the library cannot go on with it, this one reply ends.
  template <class F>
  void guarded(F&& f) {
    const TimeLimit limit(longest_mask);
    try {
      f();
    } catch (const std::exception&) {
      is_lost = true;
    }
  }

  bool is_free() const { return next_gate < free_until.size(); }
  bool is_spelled() const { return at + 1 < spelling.size(); }  // the last piece may be part of a longer token

  // Where only one text can come, it is spelled as the tokenizer spells it: the model has seen no other way, and it has no choice to make.
  void look_ahead() {
    if (is_spelled()) return;
    constexpr size_t far = 256;  // bytes; it might go on for ever
    std::string text;
    for (int16_t byte; text.size() < far && (byte = only_byte()) != none; filled = false) {
      if (!matcher.AcceptString(std::string(1, char(byte)))) break;
      text += char(byte);
    }
    spelling = spelled(grammar->tokenizer, text);
    at = 0;
    if (text.empty()) return;
    matcher.Rollback(int(text.size()));
    filled = false;
  }

  int16_t only_byte() {
    fill();
    int16_t only = none;
    for (size_t word = 0; word < bits.size(); ++word) {
      for (uint32_t left = uint32_t(bits[word]); left != 0; left &= left - 1) {
        const int16_t byte = (*grammar->first_bytes)[32 * word + size_t(std::countr_zero(left))];
        if (byte == none || (only != none && byte != only)) return none;
        only = byte;
      }
    }
    return only;
  }

  // Computed once for each token.
  void fill() {
    if (filled) return;
    int64_t shape = int64_t(bits.size());
    DLTensor tensor{bits.data(), {kDLCPU, 0}, 1, {kDLInt, 32, 1}, &shape, nullptr, 0};
    matcher.FillNextTokenBitmask(&tensor);
    filled = true;
  }

  const std::shared_ptr<const Grammar> grammar;
  const std::vector<int32_t> free_until;
  size_t next_gate = 0;
  xgrammar::GrammarMatcher matcher;
  std::vector<int32_t> spelling;  // of the text that must come, from `at` on
  size_t at = 0;
  std::vector<int32_t> bits;
  bool filled = false, is_lost = false;
};

Matcher::Matcher(std::shared_ptr<const Grammar> grammar, std::vector<int32_t> free_until)
    : state_(std::make_unique<State>(std::move(grammar), std::move(free_until))) {}

Matcher::Matcher(Matcher&&) noexcept = default;
Matcher::~Matcher() = default;

bool Matcher::mask(std::span<float> logits) {
  State& s = *state_;
  if (s.is_free()) return true;
  constexpr float excluded = -std::numeric_limits<float>::infinity();
  if (s.is_spelled()) {
    const size_t next = size_t(s.spelling[s.at]);
    const float kept = logits[next];
    std::ranges::fill(logits, excluded);
    logits[next] = kept;
    return true;
  }
  s.guarded([&] { s.fill(); });
  if (s.is_lost) return false;
  bool any = false;
  for (size_t word = 0; 32 * word < logits.size(); ++word) {
    const uint32_t allowed = word < s.bits.size() ? uint32_t(s.bits[word]) : 0;
    any |= allowed != 0;
    if (allowed == ~0u) continue;
    const size_t end = std::min(logits.size(), 32 * word + 32);
    for (size_t i = 32 * word; i < end; ++i)
      if ((allowed >> (i % 32) & 1) == 0) logits[i] = excluded;
  }
  return any;
}

void Matcher::accept(int32_t token) {
  State& s = *state_;
  if (s.is_free()) {
    s.next_gate += token == s.free_until[s.next_gate];
    if (!s.is_free()) s.guarded([&] { s.look_ahead(); });
    return;
  }
  s.guarded([&] {
    s.is_lost |= !s.matcher.AcceptToken(token);
    s.filled = false;
    s.at += s.at < s.spelling.size();
    s.look_ahead();
  });
}

bool Matcher::finished() {
  State& s = *state_;
  if (s.is_free() || s.is_lost || !s.matcher.IsCompleted()) return false;
  s.guarded([&] { s.fill(); });
  int64_t allowed = 0;
  for (const int32_t word : s.bits) allowed += std::popcount(uint32_t(word));
  return allowed == int64_t(s.matcher.GetStopTokenIds().size());
}

std::vector<int32_t> Matcher::forced(int64_t most) const {
  const State& s = *state_;
  const std::span<const int32_t> rest = std::span(s.spelling).subspan(s.at);
  const auto end = rest.begin() + std::clamp<int64_t>(most, 0, int64_t(rest.size()));
  return {rest.begin(), end};
}

}  // namespace hadal
