// A text's way: added tokens out of the raw text, form C, added tokens out of that, the stages of the pre-tokenizer, BPE.
#include "model/tokenizer.h"

#include <algorithm>

#include "core/error.h"
#include "model/bpe.h"
#include "model/normalizer.h"
#include "model/piece_cache.h"
#include "model/tokenizer_parts.h"
#include "model/unicode.h"

namespace hadal {
namespace {

constexpr std::string_view mark = "\xef\xb7\x90";  // shield_mark

bool is_control(const AddedToken& token) {
  return token.special || (token.text.size() > 2 && token.text.front() == '<' && token.text.back() == '>');
}

bool is_thinking(const AddedToken& token) { return token.text == "<think>" || token.text == "</think>"; }

std::string without_marks(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t next = std::min(text.find(mark, at), text.size());
    out += text.substr(at, next - at);
    at = next + mark.size();
  }
  return out;
}

}  // namespace

struct Tokenizer::Tables {
  Bpe bpe;
  std::vector<AddedToken> added = {};
  std::vector<int32_t> added_at = {};  // by id: index into `added`, or -1
  AddedTokenMatcher raw = {}, normalized = {};
  AddedTokenMatcher controls = {}, controls_but_thinking = {};
  bool normalized_controls = false;
  bool nfc = false;
  std::vector<SplitStage> stages = {};
  std::optional<size_t> prepend_space_before = {};
  bool adds_begin = false;
  std::optional<int32_t> begin = {}, end = {};

  const AddedToken* added_token(int32_t id) const {
    if (id < 0 || size_t(id) >= added_at.size() || added_at[size_t(id)] < 0) return nullptr;
    return &added[size_t(added_at[size_t(id)])];
  }
};

Tokenizer::Tokenizer(TokenizerParts parts, const std::string& where) {
  auto tables = std::make_unique<Tables>(Tables{.bpe = Bpe(parts.written, parts.merges, parts.ignore_merges, where)});
  size_t size = parts.written.size();
  for (const AddedToken& token : parts.added) size = std::max(size, size_t(token.id) + 1);
  tables->added_at.assign(size, -1);
  std::vector<AddedToken> raw, normalized, controls, controls_but_thinking;
  std::string room;
  for (const AddedToken& token : parts.added) {
    tables->added_at[size_t(token.id)] = int32_t(tables->added.size());
    tables->added.push_back(token);
    (token.normalized ? normalized : raw).push_back(token);
    if (token.normalized && parts.nfc) normalized.back().text = to_nfc(token.text, room);
    if (!is_control(token)) continue;
    const AddedToken& matched = token.normalized ? normalized.back() : token;
    tables->normalized_controls |= token.normalized;
    controls.push_back(matched);
    if (!is_thinking(token)) controls_but_thinking.push_back(matched);
  }
  tables->raw = AddedTokenMatcher(std::move(raw));
  tables->normalized = AddedTokenMatcher(std::move(normalized));
  tables->controls = AddedTokenMatcher(std::move(controls));
  tables->controls_but_thinking = AddedTokenMatcher(std::move(controls_but_thinking));
  tables->nfc = parts.nfc;
  tables->stages = std::move(parts.stages);
  tables->prepend_space_before = parts.prepend_space_before;
  tables->adds_begin = parts.adds_begin;
  tables->begin = parts.begin;
  tables->end = parts.end;
  tables_ = std::move(tables);
}

Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

class Tokenizer::Encoder {  // one call of encode()
 public:
  Encoder(const Tables& tables, Added added)
      : tables_(tables), special_as_text_(added == Added::as_text), shielded_(added == Added::shielded) {}

  std::vector<int32_t> run(std::string_view text) {
    tokens_.reserve(text.size() / 4 + 8);
    while (!text.empty()) {
      const size_t valid = valid_utf8_prefix(text);
      if (valid > 0) encode_valid(text.substr(0, valid));
      text.remove_prefix(valid);
      size_t broken = 0;
      while (broken < text.size()) {
        const Utf8Step step = utf8_step(text.substr(broken));
        if (step.kind == Utf8Step::whole) break;
        broken += step.bytes;
      }
      if (broken > 0) encode_broken(text.substr(0, broken));
      text.remove_prefix(broken);
    }
    return std::move(tokens_);
  }

 private:
  void encode_valid(std::string_view text) {
    const auto push = [&](const AddedToken& token) { tokens_.push_back(token.id); };
    const auto plain = [&](std::string_view part) {
      if (!shielded_ || part.find(mark) == std::string_view::npos) return encode_piece(0, part);
      if (const std::string bare = without_marks(part); !bare.empty()) encode_piece(0, bare);
    };
    const auto normalise = [&](std::string_view part) {
      tables_.normalized.split(tables_.nfc ? to_nfc(part, normalized_) : part, special_as_text_, plain, push);
    };
    tables_.raw.split(text, special_as_text_, normalise, push);
  }

  // Bytes that are no characters are a piece of their own. Those that the vocabulary lacks become U+FFFD.
  void encode_broken(std::string_view bytes) {
    std::string known;
    for (const char c : bytes) {
      if (tables_.bpe.has_byte(uint8_t(c)))
        known += c;
      else
        known += "\xef\xbf\xbd";
    }
    tables_.bpe.encode(known, tokens_, bpe_scratch_);
  }

  // known_new: the stage before has looked for this very piece.
  void encode_piece(uint32_t stage, std::string_view piece, bool known_new = false) {
    const bool cached = stage > 0 && piece.size() <= PieceCache::longest && !known_new;
    if (cached && cache_.append(stage, piece, tokens_)) return;
    const size_t first = tokens_.size();
    std::string spaced;
    std::string_view whole = piece;
    if (tables_.prepend_space_before == stage && piece[0] != ' ') whole = spaced.append(1, ' ').append(piece);
    if (stage == tables_.stages.size())
      tables_.bpe.encode(whole, tokens_, bpe_scratch_);
    else
      split(tables_.stages[stage], whole, regex_scratch_,
            [&](std::string_view part) { encode_piece(stage + 1, part, (cached || known_new) && part.size() == whole.size()); });
    if (cached) cache_.insert(stage, piece, {tokens_.data() + first, tokens_.size() - first});
  }

  const Tables& tables_;
  const bool special_as_text_, shielded_;
  std::vector<int32_t> tokens_;
  std::string normalized_;
  Regex::Scratch regex_scratch_;
  Bpe::Scratch bpe_scratch_;
  PieceCache cache_;
};

std::vector<int32_t> Tokenizer::encode(std::string_view text, Added added) const { return Encoder(*tables_, added).run(text); }

std::string Tokenizer::shield(std::string_view text, bool keep_thinking) const {
  std::string bare = without_marks(text), room;
  if (tables_->nfc && tables_->normalized_controls) bare = to_nfc(bare, room);  // where those are looked for
  const std::vector<size_t> starts = (keep_thinking ? tables_->controls_but_thinking : tables_->controls).starts(bare);
  std::string out;
  size_t done = 0;
  for (const size_t start : starts) {  // the mark stands behind the token's first character
    const size_t end = start + utf8_step(std::string_view(bare).substr(start)).bytes;
    out += bare.substr(done, end - done);
    out += mark;
    done = end;
  }
  return out + bare.substr(done);
}

std::string_view Tokenizer::bytes(int32_t token) const {
  if (const AddedToken* added = tables_->added_token(token)) return added->text;
  if (token < 0 || token >= tables_->bpe.size()) return {};
  return tables_->bpe.bytes(token);
}

std::string Tokenizer::decode(const std::vector<int32_t>& tokens) const {
  std::string text;
  for (const int32_t token : tokens) text += bytes(token);
  return text;
}

bool Tokenizer::is_special(int32_t token) const {
  const AddedToken* added = tables_->added_token(token);
  return added != nullptr && added->special;
}

int32_t Tokenizer::size() const { return int32_t(tables_->added_at.size()); }

std::optional<int32_t> Tokenizer::find(std::string_view piece) const {
  for (const AddedToken& token : tables_->added)
    if (token.text == piece) return token.id;
  const int32_t token = tables_->bpe.find(piece);
  return token < 0 ? std::nullopt : std::optional(token);
}

bool Tokenizer::adds_begin() const { return tables_->adds_begin; }
std::optional<int32_t> Tokenizer::begin_token() const { return tables_->begin; }
std::optional<int32_t> Tokenizer::end_token() const { return tables_->end; }

std::pair<std::string_view, std::string_view> split_merge(std::string_view text, size_t number, const std::string& where) {
  const size_t space = text.find(' ');
  if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
    throw Error("{}[{}]: expected two pieces with a space between, found \"{}\"", where, number, text);
  return {text.substr(0, space), text.substr(space + 1)};
}

}  // namespace hadal
