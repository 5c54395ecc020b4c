// What the server tells Prometheus: counts and times of requests and tokens. From any thread.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

namespace hadal {

class Metrics {
 public:
  Metrics();
  ~Metrics();
  void answered(int status);                         // an HTTP answer was given; 499: its client had gone before
  void prompt_read(int64_t tokens, double seconds);  // from the request's arrival to its first token
  void token_followed(double seconds);               // behind the token before
  void reply_ended(int64_t tokens, double seconds);  // from the request's arrival to its end
  std::string text(int64_t requests) const;          // in Prometheus' text format; requests: running and waiting now

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hadal
