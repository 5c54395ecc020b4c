#include "infer/engine.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/error.h"
#include "infer/adapter.h"
#include "infer/draft_layer.h"
#include "infer/forward.h"
#include "infer/scheduler.h"

namespace hadal {

struct Engine::State {
  State(const Model& m, const EngineOptions& o)
      : model(m), options(o), scheduler(m, o), scratch(m.config, o.max_rows, o.max_rows), gain(o.draft_gain) {}

  const Model& model;
  const EngineOptions options;
  Scheduler scheduler;
  Scratch scratch;
  DraftGain gain;
  DraftFigures drafts;

  void finish(Sequence& sequence, Finish how) {
    scheduler.release(sequence);
    if (sequence.request.on_finish) sequence.request.on_finish(how);
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
    for (auto& s : scheduler.running) {
      if (!s->in_reply()) continue;
      ++replies;
      s->guess = guess_for(*s);
      if (!s->guess.tokens.empty()) guesses.push_back(&s->guess);
    }
    const bool reads = replies < int64_t(scheduler.running.size());
    const int64_t most = options.max_rows - (reads ? options.prompt_chunk : 0);  // guesses leave room for a prompt
    if (guesses.empty() || replies + int64_t(guesses.size()) > most) return 0;
    const int64_t length = gain.best_length(guesses, replies);
    return std::min(length, (most - replies) / int64_t(guesses.size()));
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
    for (auto& s : scheduler.running) {
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
    for (auto& s : scheduler.running)
      if (s->first_row >= plan.reply_rows && s->reply.empty() && s->request.on_read) s->request.on_read(s->next(), s->cached);
  }

  // The draft layer sees every row that this pass has made sure of, and guesses the token behind the next one of each reply.
  void run_draft_layer(const Plan& plan) {
    if (model.params.drafts.empty() || model.experts || options.drafting == Drafting::off || options.drafting == Drafting::lookup) return;
    const bool replies_only = plan.reply_rows == int64_t(plan.tokens.size());
    const bool pays = gain.layer_pays(std::max<int64_t>(1, int64_t(plan.turns.size())));
    std::vector<int32_t> tokens, hidden, wanted;
    std::vector<Segment> segments;
    std::vector<Sequence*> replies;
    for (auto& s : scheduler.running) {
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
      if (!s->in_reply()) continue;
      wanted.push_back(int32_t(tokens.size()) - 1);
      replies.push_back(s.get());
    }
    if (tokens.empty()) return;
    const auto start = std::chrono::steady_clock::now();
    const Mat<float> logits = forward_draft(model, {tokens, segments, wanted}, hidden, scheduler.kv, scratch);
    if (replies_only) gain.layer_passed(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    for (size_t i = 0; i < replies.size(); ++i) {  // drawn as the token itself will be, from nearly the same logits: mostly the same draw
      Sequence& s = *replies[i];
      if (s.matcher) s.matcher->mask({logits.row(int64_t(i)), size_t(logits.cols)});
      s.draft = sample({logits.row(int64_t(i)), size_t(logits.cols)}, s.request.sampling, s.request.prompt, s.reply,
                       s.request.prompt.size() + s.reply.size());
    }
  }

  bool step() {
    for (auto& dropped : scheduler.take_cancelled()) finish(*dropped, Finish::cancelled);
    scheduler.admit();
    const Plan plan = scheduler.plan(guess_all());
    if (plan.tokens.empty()) {
      scheduler.tell();
      return false;
    }
    const auto start = std::chrono::steady_clock::now();
    const Mat<float> logits = forward(model, {plan.tokens, plan.segments, plan.wanted}, scheduler.kv, scratch);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (plan.reply_rows == int64_t(plan.tokens.size())) gain.passed(plan.reply_rows, seconds);
    tell_of_prompts(plan, logits);
    for (const Turn& turn : plan.turns) {
      Finish how;
      if (take_turn(*turn.sequence, turn, logits, how)) finish(*scheduler.take(*turn.sequence), how);
    }
    run_draft_layer(plan);
    scheduler.passed(plan, seconds);
    scheduler.tell();
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

int64_t Engine::cache_rows() const { return state_->scheduler.rows(); }

bool Engine::can_shift(int64_t keep) const { return state_->scheduler.can_shift(keep); }

DraftFigures Engine::drafts() const { return state_->drafts; }

EngineFigures Engine::figures() const { return state_->scheduler.figures(); }

void Engine::check(const Request& request) const {
  const ModelConfig& config = state_->model.config;
  const int64_t prompt = int64_t(request.prompt.size()), room = state_->scheduler.room();
  if (prompt == 0) throw Error("the prompt is empty: expected at least one token");
  if (request.max_tokens < 1) throw Error("max_tokens: expected 1 or more, found {}", request.max_tokens);
  if (request.keep > prompt) throw Error("keep: expected at most the {} tokens of the prompt, found {}", prompt, request.keep);
  if (prompt + 1 > room && !state_->scheduler.can_shift(request.keep)) {
    throw Error("the prompt is too long: {} tokens and a reply of at least one, but {} holds {}", prompt,
                state_->scheduler.rows() < config.context ? "the key-value cache" : "the model's context", room);
  }
  for (const int32_t token : request.prompt)
    if (token < 0 || token >= config.vocab) throw Error("token {} is out of range: expected [0, {})", token, config.vocab);
  request.sampling.check(config.vocab);
  if (request.adapter && !request.adapter->belongs_to(state_->model))
    throw Error("adapter {} was loaded for another model", request.adapter->name);
}

uint64_t Engine::submit(Request request) {
  check(request);
  const int64_t prompt = int64_t(request.prompt.size()), room = state_->scheduler.room();
  const bool shifts = state_->scheduler.can_shift(request.keep) && request.max_tokens > room - prompt;
  if (!shifts) {
    request.keep = -1;
    request.max_tokens = std::min(request.max_tokens, room - prompt);  // then the reply ends with Finish::length
  }
  auto sequence = std::make_unique<Sequence>();
  sequence->limit = shifts ? room : prompt + request.max_tokens;
  sequence->shifts = shifts;
  sequence->stays = shifts || request.wants_prompt_rows();
  sequence->request = std::move(request);
  if (sequence->request.grammar) sequence->matcher.emplace(sequence->request.grammar, sequence->request.free_until);
  return state_->scheduler.submit(std::move(sequence));
}

void Engine::cancel(uint64_t id) { state_->scheduler.cancel(id); }

bool Engine::step() { return state_->step(); }

}  // namespace hadal
