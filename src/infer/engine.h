// Many sequences, one model: requests in, tokens out. The scheduler knows rows and pages, not layers.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/mat.h"
#include "infer/draft.h"
#include "infer/grammar.h"
#include "infer/sampler.h"

namespace hadal {

struct Adapter;
struct Model;

enum class Finish { length, stop, cancelled };

struct Token {
  int32_t id;
  std::vector<Logprob> logprobs;  // of this token, then the likeliest; empty unless asked for
};

struct Request {
  std::vector<int32_t> prompt;  // at least one token
  Sampling sampling;
  int64_t max_tokens = 256;
  int64_t logprobs = -1;                   // how many alternatives to report; -1: none, not even the token's own
  std::vector<int32_t> stop_tokens;        // end the reply and are not delivered
  std::shared_ptr<const Grammar> grammar;  // that the reply keeps to; empty: it is free
  std::vector<int32_t> free_until;         // see Matcher
  std::shared_ptr<const Adapter> adapter;  // none: the model alone
  int64_t keep = -1;    // when the context is full, the older half behind the first `keep` tokens is forgotten, if can_shift; -1: the end
  int priority = 0;     // the greater come first, and take the places of lesser ones that run when memory is short
  uint64_t client = 0;  // requests of one client take turns with those of others
  // Called by step(), in this order. Those of the prompt's rows want every one computed: nothing known from before is taken for them.
  std::function<void(Mat<const float>)> on_hidden;    // [rows, dim]: what leaves the final norm for the next tokens of the prompt
  std::function<void(const Token&)> on_prompt_token;  // each token of the prompt, with logprobs but for the first, which follows nothing
  std::function<void(int64_t read, int64_t cached)> on_read;  // so many tokens of the prompt are read, so many were known from before
  std::function<bool(const Token&)> on_token;                 // return false to stop
  std::function<void(Finish)> on_finish;                      // once
  bool wants_prompt_rows() const { return on_hidden || on_prompt_token; }
};

struct PrefixFolder {
  std::string path;      // empty: none
  std::string identity;  // of the weights, and of whatever else the bytes depend on
  int64_t bytes = 0;     // at most
};

struct EngineOptions {
  DType cache = DType::f16;                 // i8: half of the bytes; f32: for exact comparison with a reference
  int64_t sequences = 1;                    // that a cache with windows has room for at least, whatever their length
  int64_t cache_rows = 0;                   // rows of all sequences together; 0: the model's context, less where memory is short
  int64_t max_rows = 512;                   // rows of one forward pass
  int64_t prompt_chunk = 256;               // rows of one prompt per pass; boundaries are multiples of it, whatever the neighbours
  Drafting drafting = Drafting::automatic;  // guesses are checked while that makes replies faster; it never changes them
  double draft_gain = 1.03;                 // how much faster it must promise to be; 0: guesses are always checked
  bool share_prefixes = true;               // prompts that begin alike are read once; replies are the same to the bit
  PrefixFolder disk = {};                   // where what was read of prompts outlives the engine
};

struct EngineFigures {                                  // since the start, and now
  int64_t running = 0, waiting = 0;                     // requests
  int64_t pages = 0, free_pages = 0, kept_pages = 0;    // of the cache; kept: of prompts that others may begin with
  int64_t passes = 0, prompt_rows = 0, reply_rows = 0;  // forward passes, their rows
  int64_t prompt_tokens = 0, cached_tokens = 0;         // of requests that were begun; found in the cache
  int64_t preempted = 0, cancelled = 0;                 // times a running request had to make room; requests
};

class Engine {  // one thread calls step(); submit and cancel may come from any thread
 public:
  Engine(const Model& model, const EngineOptions& options);
  ~Engine();
  void check(const Request& request) const;  // Error as submit has it
  uint64_t submit(Request request);          // Error: empty prompt, id out of range, longer than the cache or the context, bad sampling
  void cancel(uint64_t id);                  // takes effect at the next step; unknown ids are ignored
  bool step();                               // schedule, forward, sample, deliver; false when there is nothing to do
  int64_t cache_rows() const;
  bool can_shift(int64_t keep) const;  // then prompt and reply may be longer than the context
  DraftFigures drafts() const;         // so far; for the thread that calls step()
  EngineFigures figures() const;       // from any thread: as of the last step

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hadal
