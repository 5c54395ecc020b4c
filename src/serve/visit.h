// One call from its arrival to its answer: who asks, until when, and what came of it, for limits, log and metrics. Used by one thread
// after another: the server's, a worker's until requests are handed to the engine, the engine's from then on.
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "serve/keys.h"

namespace hadal {

struct Visit {
  using Clock = std::chrono::steady_clock;

  std::string id;  // of the call, as the client or this server named it
  std::string method, path;
  std::shared_ptr<KeyUse> key;  // null: nobody asks for one, or none fits
  std::string key_name;
  const Clock::time_point arrival = Clock::now();
  std::optional<Clock::time_point> deadline;

  std::string model, finish;                                       // finish: of the last choice
  int64_t prompt_tokens = 0, cached_tokens = 0, reply_tokens = 0;  // of all choices
  std::optional<Clock::time_point> begun, first_token;             // begun: its first row was computed
  std::string asked, answered;                                     // for a log that wants them

  int64_t admitted = 0;                // requests that count against the key's limit
  std::shared_ptr<const void> places;  // among the server's requests

  ~Visit() { leave(); }
  void leave() {  // what was written counts, and its places are free again; once
    places.reset();
    if (!key || admitted == 0) return;
    key->charge(reply_tokens, Clock::now());
    key->end(std::exchange(admitted, 0));
  }
};

}  // namespace hadal
