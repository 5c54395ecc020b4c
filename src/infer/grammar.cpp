// The grammar library behind plain types. Nothing of it leaves this file.
#include "infer/grammar.h"

#include <dlpack/dlpack.h>
#include <xgrammar/compiler.h>
#include <xgrammar/matcher.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <list>
#include <mutex>

#include "core/error.h"
#include "model/json_schema.h"
#include "model/tokenizer.h"

namespace {
thread_local std::string warning;  // the latest of this thread
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

// One text for each token; none for those that are no text.
std::vector<std::string> texts_of(const Tokenizer& tokenizer, int64_t vocab) {
  std::vector<std::string> texts(size_t(std::max<int64_t>(vocab, tokenizer.size())));
  for (int32_t id = 0; id < tokenizer.size(); ++id)
    if (!tokenizer.is_special(id)) texts[size_t(id)] = tokenizer.bytes(id);
  return texts;
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

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size()) text.replace(at, what.size(), by);
}

// What xgrammar 0.2.8 has not right in its classes of characters: strings of limited length may hold control characters and no escapes
// there, and all may hold halves of surrogates, which are no UTF-8.
xgrammar::Grammar with_json_characters(const xgrammar::Grammar& grammar) {
  const std::string before = grammar.ToString();
  std::string text = before;
  replace_all(text, R"x( ::= (([^\"\\\r\n])))x", R"x( ::= (([^\0-\x1f\"\\\r\n]) | ("\\" [\"\\/bfnrt])))x");
  replace_all(text, R"x([^\0-\x1f\"\\\r\n])x", R"x([^\0-\x1f\"\\\ud800-\udfff])x");
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
    for (const std::string& text : tokens.GetDecodedVocab()) first.push_back(text.empty() ? none : int16_t(uint8_t(text[0])));
    for (const int32_t end : ends) first[size_t(end)] = none;
    first_bytes = std::make_shared<const FirstBytes>(std::move(first));
  }

  std::shared_ptr<const Grammar> compile(const ReplyForm& form, bool after_reasoning) {
    if (form.text.size() > longest_form)
      throw Error("{}: expected at most {} bytes, found {}", name_of(form.kind), longest_form, form.text.size());
    warning.clear();
    try {
      xgrammar::Grammar grammar = with_json_characters(parse(form, tokens));
      if (after_reasoning) grammar = xgrammar::Grammar::Concat({xgrammar::Grammar::FromEBNF(line_breaks), grammar});
      if (!warning.empty()) throw Error("not supported: {}", warning);
      return std::make_shared<const Grammar>(Grammar{compiler.CompileGrammar(grammar), tokenizer, first_bytes});
    } catch (const std::exception& e) {
      throw Error("{}: {}", name_of(form.kind), e.what());
    }
  }

  struct Entry {
    ReplyForm form;
    bool after_reasoning;
    std::shared_ptr<const Grammar> grammar;
  };
  const Tokenizer& tokenizer;
  const xgrammar::TokenizerInfo tokens;
  std::shared_ptr<const FirstBytes> first_bytes;
  std::mutex mutex;  // guards what follows
  xgrammar::GrammarCompiler compiler;
  std::list<Entry> latest;  // the last one used comes first
};

Grammars::Grammars(const Tokenizer& tokenizer, int64_t vocab, std::span<const int32_t> end_tokens)
    : state_(std::make_unique<State>(tokenizer, vocab, end_tokens)) {}

Grammars::~Grammars() = default;

std::shared_ptr<const Grammar> Grammars::compile(const ReplyForm& form, bool after_reasoning) {
  const std::lock_guard lock(state_->mutex);
  std::list<State::Entry>& latest = state_->latest;
  const auto at =
      std::ranges::find_if(latest, [&](const State::Entry& e) { return e.form == form && e.after_reasoning == after_reasoning; });
  if (at != latest.end()) {
    latest.splice(latest.begin(), latest, at);
    return latest.front().grammar;
  }
  latest.push_front({form, after_reasoning, state_->compile(form, after_reasoning)});
  size_t kept = 0;
  for (auto entry = latest.begin(); entry != latest.end(); ++entry) {
    kept += entry->grammar->compiled.MemorySizeBytes();
    if (kept <= most_kept || entry == latest.begin()) continue;
    latest.erase(entry, latest.end());
    break;
  }
  return latest.front().grammar;
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
    spelling = grammar->tokenizer.encode(text, Tokenizer::Added::as_text);
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
