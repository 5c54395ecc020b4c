// Which rows the next forward pass has: who runs, who waits, and whose pages make room. It knows rows and pages, not layers.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "infer/draft.h"
#include "infer/engine.h"
#include "infer/forward.h"
#include "infer/kv_cache.h"
#include "infer/model.h"
#include "infer/prefix_cache.h"

namespace hadal {

struct Sequence {
  uint64_t id;
  Request request;
  std::vector<int32_t> reply;
  KvRows kv;
  int64_t limit = 0;                    // rows at a time
  int64_t forgotten = 0;                // tokens: row i of kv is that many tokens further on, once it is behind those that were kept
  bool shifts = false;                  // may forget
  bool stays = false;                   // has all its rows from the start: it gives way to nobody
  PrefixCache::Node* prefix = nullptr;  // the last whose pages it has borrowed
  int64_t cached = 0;                   // tokens of the prompt that were read for somebody before
  std::optional<Matcher> matcher;       // of request.grammar
  Lookup lookup;                        // of prompt and reply, once the prompt is read
  Guess guess;                          // of the tokens behind the reply
  int64_t drafted_rows = 0;             // rows that the draft layer has seen; -1: it sees no more of this sequence
  int32_t draft = -1;                   // the draft layer's guess at the next token; -1: none
  int64_t first_row = -1, from = 0;     // of this pass; the position of the first; -1: not in it

  int64_t prompt_size() const { return int64_t(request.prompt.size()); }
  int64_t tokens() const { return prompt_size() + int64_t(reply.size()); }
  int32_t token(int64_t i) const { return i < prompt_size() ? request.prompt[size_t(i)] : reply[size_t(i - prompt_size())]; }
  int64_t next() const { return kv.length + forgotten; }  // the first token that is not in the cache
  bool in_prompt() const { return next() < prompt_size(); }
  // Otherwise it reads: its prompt, or again what it had replied.
  bool in_reply() const { return !reply.empty() && next() == tokens() - 1; }
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
  int64_t reply_rows = 0;  // the first rows; those behind are read
};

class Scheduler {
 public:
  Scheduler(const Model& model, const EngineOptions& options);

  uint64_t submit(std::unique_ptr<Sequence> sequence);  // from any thread, and so are the two that follow
  void cancel(uint64_t id);
  EngineFigures figures() const;

  // What follows is for the thread that calls Engine::step().
  std::vector<std::unique_ptr<Sequence>> take_cancelled();
  void admit();
  // The rows of the next pass; of each reply's guess at most `checked` tokens. Empty: there is nothing to do.
  Plan plan(int64_t checked);
  void passed(const Plan& plan, double seconds);
  void tell();  // the figures of now
  std::unique_ptr<Sequence> take(Sequence& ended);
  void release(Sequence& sequence);  // what it has read stays for others

  bool can_shift(int64_t keep) const;
  int64_t rows() const { return kv.most_rows(); }
  int64_t room() const;                            // tokens of one sequence
  std::vector<std::unique_ptr<Sequence>> running;  // in order of admission
  KvCache kv;

 private:
  void count_clients();
  bool hold(Sequence& s, int64_t rows);
  bool hold_or_preempt(Sequence& s, int64_t rows);
  void preempt(Sequence& s);
  Sequence* least_important() const;
  void make_room(Sequence& s, int64_t rows);
  int64_t most_together(const Sequence& s) const;
  std::vector<Sequence*> readers() const;
  bool may_forget_soon(const Sequence& s) const;
  bool lends(const Sequence& s) const;   // while it runs
  bool shares(const Sequence& s) const;  // its next chunk, if somebody has read it
  std::vector<int32_t> next_chunk(const Sequence& s) const;
  void borrow(Sequence& s);
  void lend(Sequence& s);
  void own(Sequence& s);
  void go_on_from(Sequence& s, PrefixCache::Node* node);
  bool is_read_by(const Sequence& s, std::span<Sequence* const> earlier) const;
  void make_replies_room();
  void add_replies(Plan& plan, int64_t checked);
  void add_readers(Plan& plan);
  int64_t most_rows_beside(int64_t reply_rows) const;
  void add_segment(Plan& plan, Sequence& s, std::span<const int32_t> tokens, int64_t known);

  const Model& model_;
  const EngineOptions options_;
  const bool cut_anywhere_;                // a row's bits are the same wherever its prompt is cut, and in a reply
  std::unique_ptr<PrefixCache> prefixes_;  // null: nothing is shared
  double seconds_per_row_ = 0;             // that is read: of the latest pass
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::map<uint64_t, int64_t> begun_;  // by client: requests, since it was last without any
  EngineFigures now_;

  mutable std::mutex mutex_;  // guards what follows
  std::deque<std::unique_ptr<Sequence>> arrived_;
  std::set<uint64_t> cancelled_;
  uint64_t next_id_ = 1;
  EngineFigures figures_;
};

}  // namespace hadal
