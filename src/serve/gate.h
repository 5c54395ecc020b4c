// What every call passes on its way in and out: its id, the names and origins that are let in, its key and what that allows, the log.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "serve/http_server.h"
#include "serve/keys.h"
#include "serve/metrics.h"
#include "serve/request_log.h"
#include "serve/visit.h"

namespace hadal {

struct GateOptions {
  std::string key;                   // that is asked for; empty: none
  std::filesystem::path keys;        // a file of more; empty: none
  std::vector<std::string> origins;  // of web pages that may ask, as "https://example.org"; "*": all
  bool local = false;                // only this machine asks: under its own names
  std::vector<std::string> hosts;    // and these
  std::string log;                   // path, -: standard output; empty: none
  bool log_content = false;          // prompts and replies too
  double reply_seconds = 0;          // the longest that a reply may take; 0: no limit
};

class Gate {
 public:
  Gate(GateOptions options, Metrics& metrics);  // Error: a file that is wrong
  // Makes the call's visit. The reply for whoever answers the call; nullptr: it has been answered here.
  std::shared_ptr<HttpReply> open(HttpCall& call, std::shared_ptr<HttpReply> reply);
  void check_key(const HttpCall& call);                                    // finds out who asks. ApiError 401
  void check_model(const HttpCall& call, const std::string& model) const;  // ApiError 403: this key may not use it
  void check_admin(const HttpCall& call) const;                            // ApiError 403
  // Takes the key's tokens and places for so many requests, until the visit leaves. ApiError 429
  void admit(const HttpCall& call, int64_t requests, int64_t prompt_tokens) const;
  // The earliest of the server's, the header's and what the call asks for, 0: nothing. ApiError: the header is no number
  void set_deadline(const HttpCall& call, double seconds) const;
  int64_t priority(const HttpCall& call, int64_t wished) const;  // no more than the key's
  // Keys are read again, the log is opened again. Returns what to tell whoever runs the server.
  std::string reload();
  int64_t dropped_lines() const { return log_ ? log_->dropped() : 0; }

 private:
  class Reply;
  bool refuses_host(const HttpCall& call) const;
  bool refuses_origin(const HttpCall& call) const;
  bool knows_origin(const std::string& origin) const;
  HttpHeaders headers_for(const HttpCall& call) const;

  const GateOptions options_;
  KeyRing keys_;
  Metrics& metrics_;
  std::unique_ptr<RequestLog> log_;
};

}  // namespace hadal
