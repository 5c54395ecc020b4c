#include "infer/engine.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "core/error.h"
#include "infer/adapter.h"
#include "infer/draft_layer.h"
#include "infer/forward.h"
#include "infer/shift.h"

namespace hadal {
namespace {

struct Sequence {
  uint64_t id;
  Request request;
  std::vector<int32_t> reply;
  KvRows kv;
  int64_t limit = 0;                 // rows at a time
  int64_t forgotten = 0;             // tokens: row i of kv is that many tokens further on, once it is behind those that were kept
  std::optional<Matcher> matcher;    // of request.grammar
  Lookup lookup;                     // of prompt and reply, once the prompt is read
  Guess guess;                       // of the tokens behind the reply
  int64_t drafted_rows = 0;          // rows that the draft layer has seen; -1: it sees no more of this sequence
  int32_t draft = -1;                // the draft layer's guess at the next token; -1: none
  int64_t first_row = -1, from = 0;  // of this pass; the position of the first; -1: not in it
  int32_t token(int64_t i) const {
    const int64_t before = int64_t(request.prompt.size());
    return i < before ? request.prompt[size_t(i)] : reply[size_t(i - before)];
  }
  int64_t next() const { return kv.length + forgotten; }  // the first token that is not in the cache
  bool in_prompt() const { return next() < int64_t(request.prompt.size()); }
};

struct Turn {  // a sequence whose next tokens come out of a pass
  Sequence* sequence;
  int64_t first, drafted;  // its logits: row `first` for the next token, one more for what follows each guessed token that holds
};

struct Known {  // prompt tokens whose logits somebody wants to see
  Sequence* sequence;
  int64_t first, count;  // logits; those of row `first` judge the token behind the segment's first
};

struct Plan {  // one forward pass
  std::vector<int32_t> tokens, wanted;
  std::vector<Segment> segments;
  std::vector<Turn> turns;
  std::vector<Known> known;
  int64_t reply_rows = 0;  // the first rows; those behind belong to prompts
};

// The whole context, unless it would take more than half of what memory is free.
int64_t default_cache_rows(const ModelConfig& config, DType type) {
  const int64_t affordable = int64_t(available_memory() / 2) / KvCache::bytes_per_row(config, type);
  return std::max<int64_t>(KvCache::page_rows, std::min(config.context, affordable));
}

int64_t sequences(const ModelConfig& config, const EngineOptions& o) {
  return std::max({int64_t(1), o.sequences, (o.cache_rows + config.context - 1) / config.context});
}

}  // namespace

struct Engine::State {
  State(const Model& m, const EngineOptions& o)
      : model(m),
        options(o),
        kv(m.config, o.cache, o.cache_rows > 0 ? o.cache_rows : default_cache_rows(m.config, o.cache), sequences(m.config, o),
           o.drafting == Drafting::off ? 1 : Lookup::longest + 1),
        scratch(m.config, o.max_rows, o.max_rows),
        gain(o.draft_gain) {}

  const Model& model;
  const EngineOptions options;
  KvCache kv;
  Scratch scratch;
  std::vector<std::unique_ptr<Sequence>> running;  // in order of admission; only step() touches it, and what follows
  DraftGain gain;
  DraftFigures drafts;

  std::mutex mutex;  // guards what follows
  std::deque<std::unique_ptr<Sequence>> waiting;
  std::set<uint64_t> cancelled;
  uint64_t next_id = 1;

  int64_t rows() const { return kv.most_rows(); }
  // Where every layer forgets, positions go on beyond the context that the model was trained for.
  int64_t room() const { return model.config.forgets() ? rows() : std::min(rows(), model.config.context); }

  void finish(Sequence& sequence, Finish how) {
    kv.release(sequence.kv);
    if (sequence.request.on_finish) sequence.request.on_finish(how);
  }

  void drop_cancelled() {
    std::vector<std::unique_ptr<Sequence>> dropped;
    {
      const std::lock_guard lock(mutex);
      const auto take = [&](auto& from) {
        for (auto& sequence : from)
          if (cancelled.contains(sequence->id)) dropped.push_back(std::move(sequence));
        std::erase(from, nullptr);
      };
      take(running);
      take(waiting);
      cancelled.clear();
    }
    for (auto& sequence : dropped) finish(*sequence, Finish::cancelled);
  }

  // First come, first served: a request starts when every row it may need is free, so a running one never waits for memory.
  void admit() {
    const std::lock_guard lock(mutex);
    while (!waiting.empty() && int64_t(running.size()) < options.max_rows && kv.reserve(waiting.front()->kv, waiting.front()->limit)) {
      running.push_back(std::move(waiting.front()));
      waiting.pop_front();
    }
  }

  static int64_t first_droppable(int64_t keep) { return (keep + KvCache::page_rows - 1) / KvCache::page_rows; }
  bool can_shift(int64_t keep) const {
    return keep >= 0 && !model.config.forgets() && kv.most_droppable(room(), first_droppable(keep)) > 1;
  }

  // So that `rows` more have room: of the pages behind those to keep, the older half goes, or more if they need it.
  void make_room(Sequence& s, int64_t rows) {
    if (s.kv.length + rows <= s.limit) return;
    const int64_t first = first_droppable(s.request.keep), most = kv.most_droppable(s.kv.length, first);
    const int64_t needed = (s.kv.length + rows - s.limit + KvCache::page_rows - 1) / KvCache::page_rows;
    const int64_t count = std::min(most, std::max(needed, (s.kv.length / KvCache::page_rows - first + 1) / 2));
    CHECK(needed <= count);
    shift(model, kv, s.kv, first, count);
    CHECK(kv.reserve(s.kv, s.limit));  // with the pages that have just come free
    s.forgotten += count * KvCache::page_rows;
    if (s.drafted_rows >= 0) s.drafted_rows = s.drafted_rows == s.kv.length + count * KvCache::page_rows ? s.kv.length : -1;
  }

  // Rows that can be in the cache at once beside those to keep and what windows touch.
  int64_t most_together(const Sequence& s) const {
    if (s.request.keep < 0) return INT64_MAX;
    return (kv.most_droppable(s.limit, first_droppable(s.request.keep)) - 1) * KvCache::page_rows;  // the last page may be short
  }

  // The logits behind the first `known` tokens choose nothing; the tokens from there on are guesses.
  void add_segment(Plan& plan, Sequence& s, std::span<const int32_t> tokens, int64_t known) {
    const int64_t first_row = int64_t(plan.tokens.size()), rows = int64_t(tokens.size());
    s.first_row = first_row, s.from = s.kv.length;
    plan.segments.push_back({&s.kv, first_row, rows, s.kv.length, s.request.adapter.get()});
    plan.tokens.insert(plan.tokens.end(), tokens.begin(), tokens.end());
    if (s.request.on_prompt_token && s.in_prompt()) {
      plan.known.push_back({&s, int64_t(plan.wanted.size()), known});
      for (int64_t row = 0; row < known; ++row) plan.wanted.push_back(int32_t(first_row + row));
    }
    if (known == rows) return;
    plan.turns.push_back({&s, int64_t(plan.wanted.size()), rows - known - 1});
    for (int64_t row = known; row < rows; ++row) plan.wanted.push_back(int32_t(first_row + row));
  }

  Guess guess_for(const Sequence& s) const {
    const int64_t most = s.request.max_tokens - int64_t(s.reply.size()) - 1;
    if (s.matcher)
      if (Guess forced{s.matcher->forced(std::min(most, Lookup::longest)), DraftGain::forced_kind}; !forced.tokens.empty()) return forced;
    Guess guess = options.drafting == Drafting::mtp ? Guess{} : s.lookup.guess(most);
    if (s.draft < 0 || most < 1) return guess;
    if (!guess.tokens.empty() && gain.chance(guess.kind) >= gain.chance(DraftGain::layer_kind)) return guess;
    return {{s.draft}, DraftGain::layer_kind};
  }

  // How many tokens of each sequence's guess this pass checks. A reply of `max_tokens` has no row for more. The cache
  // has spare rows behind a window: a wrong guess writes over nothing that is still seen.
  int64_t guess_all() {
    if (options.drafting == Drafting::off) return 0;
    std::vector<const Guess*> guesses;
    int64_t replies = 0;
    for (auto& s : running) {
      if (s->in_prompt()) continue;
      ++replies;
      s->guess = guess_for(*s);
      if (!s->guess.tokens.empty()) guesses.push_back(&s->guess);
    }
    if (guesses.empty() || replies + int64_t(guesses.size()) > options.max_rows) return 0;
    const int64_t length = gain.best_length(guesses, replies);
    return std::min(length, (options.max_rows - replies) / int64_t(guesses.size()));
  }

  // Replies first, one row each, then prompts in order of admission, a whole chunk at a time: where a prompt is cut depends on
  // nothing but the prompt, and with it every bit of the result.
  Plan plan_step() {
    Plan plan;
    for (auto& s : running) s->first_row = -1;
    const int64_t checked = guess_all();
    for (auto& s : running) {
      if (s->in_prompt()) continue;
      std::vector<int32_t> tokens{s->reply.back()};
      make_room(*s, 1);  // when depends on the reply alone, not on how much of it was guessed
      const int64_t count = std::min({checked, int64_t(s->guess.tokens.size()), s->limit - s->kv.length - 1});
      tokens.insert(tokens.end(), s->guess.tokens.begin(), s->guess.tokens.begin() + count);
      add_segment(plan, *s, tokens, 0);
    }
    plan.reply_rows = int64_t(plan.tokens.size());
    for (auto& s : running) {
      if (!s->in_prompt()) continue;
      const std::span<const int32_t> prompt = s->request.prompt;
      const int64_t at = s->next(), chunk = options.prompt_chunk - at % options.prompt_chunk;
      const int64_t rows = std::min({chunk, int64_t(prompt.size()) - at, most_together(*s)});
      if (int64_t(plan.tokens.size()) + rows > options.max_rows) break;
      make_room(*s, rows);
      add_segment(plan, *s, prompt.subspan(size_t(at), size_t(rows)), at + rows == int64_t(prompt.size()) ? rows - 1 : rows);
    }
    return plan;
  }

  // Samples the next token of `s` and hands it over; returns true when the reply has ended.
  bool advance(Sequence& s, std::span<float> logits, Finish& how) {
    const Request& request = s.request;
    const std::vector<float> unchanged = request.logprobs >= 0 ? std::vector(logits.begin(), logits.end()) : std::vector<float>{};
    how = Finish::length;
    if (s.matcher && !s.matcher->mask(logits)) return true;
    Token token{sample(logits, request.sampling, request.prompt, s.reply, request.prompt.size() + s.reply.size()), {}};
    s.reply.push_back(token.id);
    if (options.drafting != Drafting::off) s.lookup.add(token.id);
    how = Finish::stop;
    if (std::ranges::find(request.stop_tokens, token.id) != request.stop_tokens.end()) return true;
    if (request.logprobs >= 0) token.logprobs = logprobs(unchanged, token.id, request.logprobs);
    if (s.matcher) s.matcher->accept(token.id);
    if (request.on_token && !request.on_token(token)) return true;
    if (s.matcher && s.matcher->finished()) return true;
    how = Finish::length;
    return int64_t(s.reply.size()) >= request.max_tokens;
  }

  // One token for certain, and another for each guess that it confirms; returns true when the reply has ended.
  bool take_turn(Sequence& s, const Turn& turn, Mat<float> logits, Finish& how) {
    if (s.reply.empty() && options.drafting != Drafting::off)
      for (const int32_t token : s.request.prompt) s.lookup.add(token);
    const Guess guess = std::exchange(s.guess, {});
    const size_t before = s.reply.size();
    int64_t accepted = 0;
    bool ended = false;
    for (;;) {
      ended = advance(s, {logits.row(turn.first + accepted), size_t(logits.cols)}, how);
      if (ended || accepted == turn.drafted || s.reply.back() != guess.tokens[size_t(accepted)]) break;
      ++accepted;
    }
    s.kv.length -= turn.drafted - accepted;  // the rows of guesses that did not hold will be written over
    drafts.drafted += turn.drafted;
    drafts.accepted += accepted;
    drafts.passes += turn.drafted > 0;
    if (!guess.tokens.empty()) {  // a guess that was not checked is compared all the same, with the one token that came
      int64_t tested = 0, right = 0;
      for (size_t i = before; i < s.reply.size() && size_t(tested) < guess.tokens.size() && right == tested; ++i)
        right += s.reply[i] == guess.tokens[size_t(tested++)];
      gain.compared(guess.kind, tested, right);
    }
    return ended;
  }

  void tell_of_prompts(const Plan& plan, Mat<float> logits) {
    for (auto& s : running) {
      if (s->first_row < plan.reply_rows) continue;
      const int64_t rows = s->kv.length - s->from;
      if (s->request.on_hidden) s->request.on_hidden(normed(model, scratch, s->first_row, rows));
    }
    for (const Known& known : plan.known) {
      const Request& request = known.sequence->request;
      const int64_t first = known.sequence->from + known.sequence->forgotten;
      if (first == 0) request.on_prompt_token({request.prompt[0], {}});
      for (int64_t i = 0; i < known.count; ++i) {
        const int32_t id = request.prompt[size_t(first + i + 1)];
        request.on_prompt_token({id, logprobs({logits.row(known.first + i), size_t(logits.cols)}, id, request.logprobs)});
      }
    }
    for (auto& s : running)
      if (s->first_row >= plan.reply_rows && s->request.on_read) s->request.on_read(s->next());
  }

  // The draft layer sees every row that this pass has made sure of, and guesses the token behind the next one of each reply.
  void run_draft_layer(const Plan& plan) {
    if (model.params.drafts.empty() || model.experts || options.drafting == Drafting::off || options.drafting == Drafting::lookup) return;
    const bool replies_only = plan.reply_rows == int64_t(plan.tokens.size());
    const bool pays = gain.layer_pays(std::max<int64_t>(1, int64_t(plan.turns.size())));
    std::vector<int32_t> tokens, hidden, wanted;
    std::vector<Segment> segments;
    std::vector<Sequence*> replies;
    for (auto& s : running) {
      s->draft = -1;
      const int64_t rows = s->kv.length - s->from;
      // Now and then a sequence is seen through though it does not pay, to learn whether it would by now.
      if (replies_only && !pays && s->id % 16 != 0) s->drafted_rows = -1;
      if (s->first_row < 0 || s->drafted_rows != s->from) continue;
      segments.push_back({&s->kv, int64_t(tokens.size()), rows, s->from});
      for (int64_t i = 0; i < rows; ++i) {
        tokens.push_back(s->token(s->from + s->forgotten + i + 1));
        hidden.push_back(int32_t(s->first_row + i));
      }
      s->drafted_rows += rows;
      if (s->in_prompt()) continue;
      wanted.push_back(int32_t(tokens.size()) - 1);
      replies.push_back(s.get());
    }
    if (tokens.empty()) return;
    const auto start = std::chrono::steady_clock::now();
    const Mat<float> logits = forward_draft(model, {tokens, segments, wanted}, hidden, kv, scratch);
    if (replies_only) gain.layer_passed(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    for (size_t i = 0; i < replies.size(); ++i) {  // drawn as the token itself will be, from nearly the same logits: mostly the same draw
      Sequence& s = *replies[i];
      if (s.matcher) s.matcher->mask({logits.row(int64_t(i)), size_t(logits.cols)});
      s.draft = sample({logits.row(int64_t(i)), size_t(logits.cols)}, s.request.sampling, s.request.prompt, s.reply,
                       s.request.prompt.size() + s.reply.size());
    }
  }

  bool step() {
    drop_cancelled();
    admit();
    const Plan plan = plan_step();
    if (plan.tokens.empty()) return false;
    const auto start = std::chrono::steady_clock::now();
    const Mat<float> logits = forward(model, {plan.tokens, plan.segments, plan.wanted}, kv, scratch);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (plan.reply_rows == int64_t(plan.tokens.size())) gain.passed(plan.reply_rows, seconds);
    tell_of_prompts(plan, logits);
    for (const Turn& turn : plan.turns) {
      Sequence& s = *turn.sequence;
      Finish how;
      if (!take_turn(s, turn, logits, how)) continue;
      const auto at = std::ranges::find(running, &s, &std::unique_ptr<Sequence>::get);
      const std::unique_ptr<Sequence> ended = std::move(*at);
      running.erase(at);
      finish(*ended, how);
    }
    run_draft_layer(plan);
    return true;
  }
};

Engine::Engine(const Model& model, const EngineOptions& options) {
  if (options.prompt_chunk < 1 || options.max_rows < options.prompt_chunk)
    throw Error("engine: expected 1 <= prompt_chunk <= max_rows, found prompt_chunk {} and max_rows {}", options.prompt_chunk,
                options.max_rows);
  state_ = std::make_unique<State>(model, options);
}

Engine::~Engine() = default;

int64_t Engine::cache_rows() const { return state_->rows(); }

bool Engine::can_shift(int64_t keep) const { return state_->can_shift(keep); }

DraftFigures Engine::drafts() const { return state_->drafts; }

void Engine::check(const Request& request) const {
  const ModelConfig& config = state_->model.config;
  const int64_t prompt = int64_t(request.prompt.size()), room = state_->room();
  if (prompt == 0) throw Error("the prompt is empty: expected at least one token");
  if (request.max_tokens < 1) throw Error("max_tokens: expected 1 or more, found {}", request.max_tokens);
  if (request.keep > prompt) throw Error("keep: expected at most the {} tokens of the prompt, found {}", prompt, request.keep);
  if (prompt + 1 > room && !state_->can_shift(request.keep)) {
    throw Error("the prompt is too long: {} tokens and a reply of at least one, but {} holds {}", prompt,
                state_->rows() < config.context ? "the key-value cache" : "the model's context", room);
  }
  for (const int32_t token : request.prompt)
    if (token < 0 || token >= config.vocab) throw Error("token {} is out of range: expected [0, {})", token, config.vocab);
  request.sampling.check(config.vocab);
  if (request.adapter && !request.adapter->belongs_to(state_->model))
    throw Error("adapter {} was loaded for another model", request.adapter->name);
}

uint64_t Engine::submit(Request request) {
  check(request);
  const int64_t prompt = int64_t(request.prompt.size()), room = state_->room();
  const bool shifts = state_->can_shift(request.keep) && request.max_tokens > room - prompt;
  if (!shifts) {
    request.keep = -1;
    request.max_tokens = std::min(request.max_tokens, room - prompt);  // then the reply ends with Finish::length
  }
  auto sequence = std::make_unique<Sequence>();
  sequence->limit = shifts ? room : prompt + request.max_tokens;
  sequence->request = std::move(request);
  if (sequence->request.grammar) sequence->matcher.emplace(sequence->request.grammar, sequence->request.free_until);
  const std::lock_guard lock(state_->mutex);
  sequence->id = state_->next_id++;
  state_->waiting.push_back(std::move(sequence));
  return state_->next_id - 1;
}

void Engine::cancel(uint64_t id) {
  const std::lock_guard lock(state_->mutex);
  state_->cancelled.insert(id);
}

bool Engine::step() { return state_->step(); }

}  // namespace hadal
