#include "infer/engine.h"

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "core/error.h"
#include "infer/forward.h"

namespace hadal {
namespace {

struct Sequence {
  uint64_t id;
  Request request;
  std::vector<int32_t> reply;
  KvRows kv;
  int64_t rows_needed() const { return int64_t(request.prompt.size()) + request.max_tokens; }
  bool in_prompt() const { return kv.length < int64_t(request.prompt.size()); }
};

struct Plan {  // one forward pass
  std::vector<int32_t> tokens, wanted;
  std::vector<Segment> segments;
  std::vector<Sequence*> samplers;  // whose next token comes out of wanted[i]
};

// The whole context, unless it would take more than half of what memory is free.
int64_t default_cache_rows(const ModelConfig& config, DType type) {
  const int64_t affordable = int64_t(available_memory() / 2) / KvCache::bytes_per_row(config, type);
  return std::max<int64_t>(KvCache::page_rows, std::min(config.context, affordable));
}

}  // namespace

struct Engine::State {
  State(const Model& m, const EngineOptions& o)
      : model(m),
        options(o),
        kv(m.config, o.cache, o.cache_rows > 0 ? o.cache_rows : default_cache_rows(m.config, o.cache)),
        scratch(m.config, o.max_rows, o.max_rows) {}

  const Model& model;
  const EngineOptions options;
  KvCache kv;
  Scratch scratch;
  std::vector<std::unique_ptr<Sequence>> running;  // in order of admission; only step() touches it

  std::mutex mutex;  // guards what follows
  std::deque<std::unique_ptr<Sequence>> waiting;
  std::set<uint64_t> cancelled;
  uint64_t next_id = 1;

  int64_t rows() const { return kv.pages() * KvCache::page_rows; }

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
    while (!waiting.empty() && int64_t(running.size()) < options.max_rows &&
           kv.reserve(waiting.front()->kv, waiting.front()->rows_needed())) {
      running.push_back(std::move(waiting.front()));
      waiting.pop_front();
    }
  }

  void add_segment(Plan& plan, Sequence& s, std::span<const int32_t> tokens, bool samples) {
    plan.segments.push_back({&s.kv, int64_t(plan.tokens.size()), int64_t(tokens.size()), s.kv.length});
    plan.tokens.insert(plan.tokens.end(), tokens.begin(), tokens.end());
    if (!samples) return;
    plan.wanted.push_back(int32_t(plan.tokens.size()) - 1);
    plan.samplers.push_back(&s);
  }

  // Replies first, one row each, then prompts in order of admission, a whole chunk at a time: where a prompt is cut depends on
  // nothing but the prompt, and with it every bit of the result.
  Plan plan_step() {
    Plan plan;
    for (auto& s : running)
      if (!s->in_prompt()) add_segment(plan, *s, {&s->reply.back(), 1}, true);
    for (auto& s : running) {
      if (!s->in_prompt()) continue;
      const std::span<const int32_t> prompt = s->request.prompt;
      const int64_t at = s->kv.length, rows = std::min(options.prompt_chunk - at % options.prompt_chunk, int64_t(prompt.size()) - at);
      if (int64_t(plan.tokens.size()) + rows > options.max_rows) break;
      add_segment(plan, *s, prompt.subspan(size_t(at), size_t(rows)), at + rows == int64_t(prompt.size()));
    }
    return plan;
  }

  // Samples the next token of `s` and hands it over; returns true when the reply has ended.
  bool advance(Sequence& s, std::span<float> logits, Finish& how) {
    const Request& request = s.request;
    const std::vector<float> unchanged = request.logprobs >= 0 ? std::vector(logits.begin(), logits.end()) : std::vector<float>{};
    Token token{sample(logits, request.sampling, request.prompt, s.reply, request.prompt.size() + s.reply.size()), {}};
    s.reply.push_back(token.id);
    how = Finish::stop;
    if (std::ranges::find(request.stop_tokens, token.id) != request.stop_tokens.end()) return true;
    if (request.logprobs >= 0) token.logprobs = logprobs(unchanged, token.id, request.logprobs);
    if (request.on_token && !request.on_token(token)) return true;
    how = Finish::length;
    return int64_t(s.reply.size()) >= request.max_tokens;
  }

  bool step() {
    drop_cancelled();
    admit();
    const Plan plan = plan_step();
    if (plan.tokens.empty()) return false;
    const Mat<float> logits = forward(model, {plan.tokens, plan.segments, plan.wanted}, kv, scratch);
    for (size_t i = 0; i < plan.samplers.size(); ++i) {
      Sequence& s = *plan.samplers[i];
      Finish how;
      if (!advance(s, {logits.row(int64_t(i)), size_t(logits.cols)}, how)) continue;
      const auto at = std::ranges::find(running, &s, &std::unique_ptr<Sequence>::get);
      const std::unique_ptr<Sequence> ended = std::move(*at);
      running.erase(at);
      finish(*ended, how);
    }
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

uint64_t Engine::submit(Request request) {
  const ModelConfig& config = state_->model.config;
  const int64_t prompt = int64_t(request.prompt.size()), room = std::min(state_->rows(), config.context);
  if (prompt == 0) throw Error("the prompt is empty: expected at least one token");
  if (request.max_tokens < 1) throw Error("max_tokens: expected 1 or more, found {}", request.max_tokens);
  if (prompt + 1 > room) {
    throw Error("the prompt is too long: {} tokens and a reply of at least one, but {} holds {}", prompt,
                state_->rows() < config.context ? "the key-value cache" : "the model's context", room);
  }
  for (const int32_t token : request.prompt)
    if (token < 0 || token >= config.vocab) throw Error("token {} is out of range: expected [0, {})", token, config.vocab);
  request.sampling.check(config.vocab);
  request.max_tokens = std::min(request.max_tokens, room - prompt);  // then the reply ends with Finish::length

  const std::lock_guard lock(state_->mutex);
  auto sequence = std::make_unique<Sequence>();
  sequence->id = state_->next_id++;
  sequence->request = std::move(request);
  state_->waiting.push_back(std::move(sequence));
  return state_->next_id - 1;
}

void Engine::cancel(uint64_t id) {
  const std::lock_guard lock(state_->mutex);
  state_->cancelled.insert(id);
}

bool Engine::step() { return state_->step(); }

}  // namespace hadal
