// What the server tells Prometheus: counts and times of requests and tokens. From any thread.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "infer/engine.h"

namespace hadal {

class ExpertLoad;

class Metrics {
 public:
  Metrics();
  ~Metrics();
  void answered(int status);                                                 // an HTTP answer was given; 499: its client had gone before
  void begun(double seconds);                                                // from a call's arrival until its first rows were computed
  void passed(int64_t rows);                                                 // of a forward pass
  void prompt_read(int64_t tokens, double seconds);                          // from the request's arrival to its first token
  void token_followed(double seconds);                                       // behind the token before
  void reply_ended(int64_t tokens, double seconds, const std::string& how);  // from the request's arrival to its end

  struct Now {             // what is known where the text is written
    int64_t requests = 0;  // running and waiting
    int64_t dropped_lines = 0;
    EngineFigures engines = {};                                           // of all
    std::vector<std::pair<std::string, const ExpertLoad*>> experts = {};  // of each mixture, by name
  };
  std::string text(const Now& now) const;  // in Prometheus' text format

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hadal
