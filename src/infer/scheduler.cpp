#include "infer/scheduler.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "infer/adapter.h"
#include "infer/shift.h"

namespace hadal {
namespace {

constexpr int64_t first_rows_of_reply = 64;  // that must be free when a request starts
constexpr double longest_wait = 0.1;         // seconds that running replies wait for what is read beside them

// The whole context, unless it would take more than half of what memory is free.
int64_t default_cache_rows(const ModelConfig& config, DType type) {
  const int64_t affordable = int64_t(available_memory() / 2) / KvCache::bytes_per_row(config, type);
  return std::max<int64_t>(KvCache::page_rows, std::min(config.context, affordable));
}

int64_t sequences(const ModelConfig& config, const EngineOptions& o) {
  return std::max({int64_t(1), o.sequences, (o.cache_rows + config.context - 1) / config.context});
}

// Wrong guesses are written over: a window keeps so many rows more.
int64_t spare_rows(const EngineOptions& o) { return o.drafting == Drafting::off ? 1 : Lookup::longest + 1; }

// Latent attention computes many rows otherwise than few, unless it chooses blocks; grouped-query attention does not.
bool may_be_cut_anywhere(const ModelConfig& config) {
  if (config.attention == AttentionKind::gqa) return true;
  for (int64_t layer = 0; layer < config.layers; ++layer)
    if (config.mask_of(layer).top_blocks == 0) return false;
  return config.indexer.heads == 0;
}

std::unique_ptr<PrefixCache> prefixes_for(const ModelConfig& config, KvCache& kv, const EngineOptions& o) {
  if (!o.share_prefixes || !kv.can_share()) return nullptr;
  std::unique_ptr<PrefixStore> store;
  if (!o.disk.path.empty()) store = std::make_unique<PrefixStore>(o.disk.path, o.disk.identity, o.disk.bytes);
  const int64_t chunk = may_be_cut_anywhere(config) ? KvCache::page_rows : std::lcm(o.prompt_chunk, KvCache::page_rows);
  return std::make_unique<PrefixCache>(kv, chunk, std::move(store));
}

// What one adapter has made of a prompt is of no use to another.
uint64_t weights_of(const Sequence& s) { return s.request.adapter ? s.request.adapter->generation : 0; }

int64_t first_droppable(int64_t keep) { return (keep + KvCache::page_rows - 1) / KvCache::page_rows; }

// The first of each client, then the second of each, and so on, the greater priorities before the
// lesser ones. before: how many each client has already.
template <class Range>
std::vector<Sequence*> in_turns(const Range& sequences, std::map<uint64_t, int64_t> before) {
  struct Place {
    int priority;
    int64_t turn;
    uint64_t id;
    Sequence* sequence;
  };
  std::vector<Place> places;
  places.reserve(sequences.size());
  for (const auto& s : sequences) places.push_back({-s->request.priority, 0, s->id, &*s});
  std::ranges::sort(places, {}, &Place::id);
  for (Place& place : places) place.turn = before[place.sequence->request.client]++;
  std::ranges::stable_sort(places, {}, [](const Place& p) { return std::pair(p.priority, p.turn); });
  std::vector<Sequence*> order;
  order.reserve(places.size());
  for (const Place& place : places) order.push_back(place.sequence);
  return order;
}

}  // namespace

Scheduler::Scheduler(const Model& model, const EngineOptions& o)
    : kv(model.config, o.cache, o.cache_rows > 0 ? o.cache_rows : default_cache_rows(model.config, o.cache), sequences(model.config, o),
         spare_rows(o)),
      model_(model),
      options_(o),
      cut_anywhere_(may_be_cut_anywhere(model.config)),
      prefixes_(prefixes_for(model.config, kv, o)) {}

int64_t Scheduler::room() const {  // where every layer forgets, positions go on beyond the context that the model was trained for
  return model_.config.forgets() ? rows() : std::min(rows(), model_.config.context);
}

uint64_t Scheduler::submit(std::unique_ptr<Sequence> sequence) {
  const std::lock_guard lock(mutex_);
  sequence->id = next_id_++;
  arrived_.push_back(std::move(sequence));
  ++figures_.waiting;
  return next_id_ - 1;
}

void Scheduler::cancel(uint64_t id) {
  const std::lock_guard lock(mutex_);
  cancelled_.insert(id);
}

std::vector<std::unique_ptr<Sequence>> Scheduler::take_cancelled() {
  std::set<uint64_t> ids;
  {
    const std::lock_guard lock(mutex_);
    std::ranges::move(arrived_, std::back_inserter(waiting_));
    arrived_.clear();
    ids.swap(cancelled_);
  }
  std::vector<std::unique_ptr<Sequence>> dropped;
  const auto take = [&](auto& from) {
    for (auto& sequence : from)
      if (ids.contains(sequence->id)) dropped.push_back(std::move(sequence));
    std::erase(from, nullptr);
  };
  if (!ids.empty()) {
    take(running);
    take(waiting_);
    now_.cancelled += int64_t(dropped.size());
  }
  return dropped;
}

std::unique_ptr<Sequence> Scheduler::take(Sequence& ended) {
  const auto at = std::ranges::find(running, &ended, &std::unique_ptr<Sequence>::get);
  std::unique_ptr<Sequence> taken = std::move(*at);
  running.erase(at);
  return taken;
}

void Scheduler::release(Sequence& s) {
  lend(s);
  if (s.prefix) prefixes_->leave(std::exchange(s.prefix, nullptr));
  kv.release(s.kv);
}

// --- whose pages -------------------------------------------------------------------------------------------------------------------

bool Scheduler::hold(Sequence& s, int64_t rows) {
  while (!kv.reserve(s.kv, rows))
    if (!prefixes_ || !prefixes_->give_back_one()) return false;
  return true;
}

Sequence* Scheduler::least_important() const {
  Sequence* least = nullptr;
  for (const auto& s : running)
    if (!s->stays && (!least || s->request.priority <= least->request.priority)) least = s.get();
  return least;
}

// It begins again when there is room, reading what it had replied: the bits are those that it had written.
void Scheduler::preempt(Sequence& s) {
  release(s);
  s.drafted_rows = -1, s.draft = -1, s.guess = {}, s.first_row = -1;
  waiting_.push_front(take(s));
  ++now_.preempted;
}

// False: it was itself the least important.
bool Scheduler::hold_or_preempt(Sequence& s, int64_t rows) {
  while (!hold(s, rows)) {
    Sequence* victim = least_important();
    CHECK(victim);
    preempt(*victim);
    if (victim == &s) return false;
  }
  return true;
}

bool Scheduler::can_shift(int64_t keep) const {
  return keep >= 0 && !model_.config.forgets() && kv.most_droppable(room(), first_droppable(keep)) > 1;
}

// So that `rows` more have room: of the pages behind those to keep, the older half goes, or more if they need it.
void Scheduler::make_room(Sequence& s, int64_t rows) {
  if (s.kv.length + rows <= s.limit) return;
  const int64_t first = first_droppable(s.request.keep), most = kv.most_droppable(s.kv.length, first);
  const int64_t needed = (s.kv.length + rows - s.limit + KvCache::page_rows - 1) / KvCache::page_rows;
  const int64_t count = std::min(most, std::max(needed, (s.kv.length / KvCache::page_rows - first + 1) / 2));
  CHECK(needed <= count);
  CHECK(!s.prefix);
  shift(model_, kv, s.kv, first, count);
  CHECK(kv.reserve(s.kv, s.limit));  // with the pages that have just come free
  s.forgotten += count * KvCache::page_rows;
  if (s.drafted_rows >= 0) s.drafted_rows = s.drafted_rows == s.kv.length + count * KvCache::page_rows ? s.kv.length : -1;
}

// Rows that can be in the cache at once beside those to keep and what windows touch.
int64_t Scheduler::most_together(const Sequence& s) const {
  if (!s.shifts) return INT64_MAX;
  return (kv.most_droppable(s.limit, first_droppable(s.request.keep)) - 1) * KvCache::page_rows;  // the last page may be short
}

// Clients who have nothing here any more are forgotten; one who comes new begins with the least that another has had.
void Scheduler::count_clients() {
  std::map<uint64_t, int64_t> here;
  const auto copy = [&](const auto& sequences) {
    for (const auto& s : sequences)
      if (const auto known = begun_.find(s->request.client); known != begun_.end()) here.insert(*known);
  };
  copy(running);
  copy(waiting_);
  int64_t least = INT64_MAX;
  for (const auto& [client, count] : here) least = std::min(least, count);
  for (const auto& s : waiting_) here.try_emplace(s->request.client, least == INT64_MAX ? 0 : least);
  begun_ = std::move(here);
}

// A request starts when there is room for its prompt and the beginning of its reply. Those behind it wait with it, so none is passed over
// for ever; one of greater priority takes the place of lesser ones that run.
void Scheduler::admit() {
  if (waiting_.empty()) return;
  count_clients();
  for (Sequence* s : in_turns(waiting_, begun_)) {
    if (int64_t(running.size()) >= options_.max_rows) break;
    borrow(*s);
    const int64_t rows = s->stays ? s->limit : std::min(s->limit, s->tokens() + first_rows_of_reply);
    const auto fits = [&] { return kv.fits(s->kv, rows, prefixes_ ? prefixes_->unused_pages() : 0); };
    while (!fits()) {
      Sequence* lesser = least_important();
      if (!lesser || lesser->request.priority >= s->request.priority) break;
      preempt(*lesser);
    }
    if (!fits() || !hold(*s, rows)) {
      release(*s);
      s->drafted_rows = s->reply.empty() ? 0 : -1;
      break;
    }
    const auto at = std::ranges::find(waiting_, s, &std::unique_ptr<Sequence>::get);
    running.push_back(std::move(*at));
    waiting_.erase(at);
    ++begun_[s->request.client];
    if (s->reply.empty()) now_.prompt_tokens += s->prompt_size();
  }
}

// --- beginnings that are shared ----------------------------------------------------------------------------------------------------

// Then its pages must be its own: they will be changed.
bool Scheduler::may_forget_soon(const Sequence& s) const {
  return s.shifts && (s.forgotten > 0 || s.kv.length + options_.max_rows > s.limit);
}

bool Scheduler::lends(const Sequence& s) const { return prefixes_ && !s.request.wants_prompt_rows() && !may_forget_soon(s); }

bool Scheduler::shares(const Sequence& s) const {
  if (!lends(s)) return false;
  if (s.shifts && (running.size() > 1 || (running.size() == 1 && running[0].get() != &s))) return false;  // see own()
  return s.kv.length == s.kv.borrowed * KvCache::page_rows &&
         s.kv.length + prefixes_->chunk() < s.prompt_size();  // the last token is read by everybody: its logits are wanted
}

std::vector<int32_t> Scheduler::next_chunk(const Sequence& s) const {
  std::vector<int32_t> tokens;
  const int64_t first = s.kv.borrowed * KvCache::page_rows;
  for (int64_t i = first; i < first + prefixes_->chunk(); ++i) tokens.push_back(s.token(i));
  return tokens;
}

void Scheduler::go_on_from(Sequence& s, PrefixCache::Node* node) {
  prefixes_->use(node);
  if (s.prefix) prefixes_->leave(s.prefix);
  s.prefix = node;
}

void Scheduler::borrow(Sequence& s) {
  while (shares(s)) {
    PrefixCache::Node* node = prefixes_->find(s.prefix ? s.prefix : prefixes_->root(weights_of(s)), next_chunk(s));
    if (!node) return;
    go_on_from(s, node);
    kv.borrow(s.kv, node->pages);
    s.drafted_rows = node->drafted && s.drafted_rows == s.kv.length ? s.kv.length + prefixes_->chunk() : -1;
    s.kv.length += prefixes_->chunk();
    if (s.reply.empty()) s.cached += prefixes_->chunk(), now_.cached_tokens += prefixes_->chunk();
  }
}

// What it has read becomes the tree's; if another was faster, that one's pages are as good. A reply is read as a prompt would be if its
// bits are those of one.
void Scheduler::lend(Sequence& s) {
  if (!prefixes_ || s.forgotten > 0) return;
  while (s.kv.borrowed * KvCache::page_rows + prefixes_->chunk() <=
         (cut_anywhere_ ? s.kv.length : std::min(s.kv.length, s.prompt_size()))) {
    PrefixCache::Node* at = s.prefix ? s.prefix : prefixes_->root(weights_of(s));
    PrefixCache::Node* node = prefixes_->known(at, next_chunk(s));
    if (node) {
      kv.borrow(s.kv, node->pages);
    } else {
      const std::vector<int32_t> tokens = next_chunk(s);
      PageSet pages = kv.lend(s.kv, prefixes_->chunk() / KvCache::page_rows);
      node = prefixes_->add(at, tokens, std::move(pages), s.drafted_rows >= s.kv.borrowed * KvCache::page_rows);
    }
    go_on_from(s, node);
  }
}

// Takes its pages out of the tree. Others who use them begin again.
void Scheduler::own(Sequence& s) {
  if (!s.prefix) return;
  std::vector<Sequence*> others;
  for (const auto& other : running)
    if (other.get() != &s && other->prefix) others.push_back(other.get());
  for (Sequence* other : others) preempt(*other);
  while (PrefixCache::Node* node = s.prefix) {
    s.prefix = node->parent->parent ? node->parent : nullptr;
    if (s.prefix) prefixes_->use(s.prefix);
    prefixes_->take_out(node);
  }
  s.kv.borrowed = 0;
}

// Then it is better to wait for what it reads.
bool Scheduler::is_read_by(const Sequence& s, std::span<Sequence* const> earlier) const {
  if (!shares(s)) return false;
  return std::ranges::any_of(earlier, [&](const Sequence* other) {
    return lends(*other) && other->prefix == s.prefix && weights_of(*other) == weights_of(s) && other->in_prompt() &&
           (other->kv.borrowed * KvCache::page_rows) + prefixes_->chunk() <= other->prompt_size() &&
           std::ranges::equal(next_chunk(*other), next_chunk(s));
  });
}

void Scheduler::passed(const Plan& plan, double seconds) {
  for (const auto& s : running)
    if (lends(*s)) lend(*s);
  if (const int64_t read = int64_t(plan.tokens.size()) - plan.reply_rows; read > 0) seconds_per_row_ = seconds / double(read);
  ++now_.passes;
  now_.reply_rows += plan.reply_rows;
  now_.prompt_rows += int64_t(plan.tokens.size()) - plan.reply_rows;
}

// --- one pass ----------------------------------------------------------------------------------------------------------------------

// The logits behind the first `known` tokens choose nothing; the tokens from there on are guesses.
void Scheduler::add_segment(Plan& plan, Sequence& s, std::span<const int32_t> tokens, int64_t known) {
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

std::vector<Sequence*> Scheduler::readers() const {
  std::vector<Sequence*> reading;
  for (const auto& s : running)
    if (!s->in_reply()) reading.push_back(s.get());
  return in_turns(reading, {});
}

// Each reply has a page for its next row; who forgets soon has its pages for itself.
void Scheduler::make_replies_room() {
  for (size_t i = 0; i < running.size(); ++i) {  // whoever makes room is taken out, this one or another behind or before it
    Sequence& s = *running[i];
    if (s.prefix && may_forget_soon(s)) {
      own(s);
      i = size_t(-1);
      continue;
    }
    if (!s.in_reply() || s.stays) continue;
    if (!hold_or_preempt(s, s.kv.length + 1) || i >= running.size() || running[i].get() != &s) i = size_t(-1);
  }
}

// One row each, and what is guessed.
void Scheduler::add_replies(Plan& plan, int64_t checked) {
  for (auto& s : running) {
    if (!s->in_reply()) continue;
    std::vector<int32_t> tokens{s->reply.back()};
    if (s->shifts) make_room(*s, 1);  // when depends on the reply alone, not on how much of it was guessed
    int64_t count = std::min({checked, int64_t(s->guess.tokens.size()), s->limit - s->kv.length - 1});
    if (!hold(*s, s->kv.length + 1 + count)) count = 0;
    tokens.insert(tokens.end(), s->guess.tokens.begin(), s->guess.tokens.begin() + count);
    add_segment(plan, *s, tokens, 0);
  }
  plan.reply_rows = int64_t(plan.tokens.size());
}

// Running replies wait for one chunk at most, and for less where that would take long and the cut does not matter.
int64_t Scheduler::most_rows_beside(int64_t reply_rows) const {
  if (reply_rows == 0) return options_.max_rows;
  int64_t read = options_.prompt_chunk;
  if (cut_anywhere_ && seconds_per_row_ > 0) read = std::min(read, std::max(int64_t(longest_wait / seconds_per_row_), int64_t(64)));
  return std::min(options_.max_rows, reply_rows + read);
}

// Where it matters for the bits of the result, a prompt is cut where it would be if nobody else were there.
void Scheduler::add_readers(Plan& plan) {
  const std::vector<Sequence*> reading = readers();
  const int64_t most_rows = most_rows_beside(plan.reply_rows);
  for (size_t i = 0; i < reading.size(); ++i) {
    Sequence& s = *reading[i];
    borrow(s);
    if (is_read_by(s, std::span(reading).first(i))) continue;
    const int64_t at = s.next();
    int64_t rows = 0;
    if (s.in_prompt()) {
      rows = std::min({options_.prompt_chunk - at % options_.prompt_chunk, s.prompt_size() - at, most_together(s)});
    } else {  // as few rows as a reply's guesses may have: computed as they were
      rows = std::min({spare_rows(options_), model_.mla_expand_rows - 1, s.tokens() - 1 - at});
    }
    const int64_t left = most_rows - int64_t(plan.tokens.size());
    if (cut_anywhere_ && s.in_prompt()) rows = std::min(rows, left);
    if (rows > left || rows == 0) break;
    if (s.shifts) make_room(s, rows);
    std::vector<int32_t> tokens;
    for (int64_t t = at; t < at + rows; ++t) tokens.push_back(s.token(t));
    add_segment(plan, s, tokens, at + rows == s.tokens() && s.reply.empty() ? rows - 1 : rows);
  }
}

Plan Scheduler::plan(int64_t checked) {
  for (auto& s : running) s->first_row = -1;
  make_replies_room();
  Plan plan;
  add_replies(plan, checked);
  add_readers(plan);
  return plan;
}

EngineFigures Scheduler::figures() const {
  const std::lock_guard lock(mutex_);
  return figures_;
}

void Scheduler::tell() {
  now_.running = int64_t(running.size());
  now_.pages = kv.pages(), now_.free_pages = kv.free_pages(), now_.kept_pages = prefixes_ ? prefixes_->pages() : 0;
  const std::lock_guard lock(mutex_);
  now_.waiting = int64_t(waiting_.size() + arrived_.size());
  figures_ = now_;
}

}  // namespace hadal
