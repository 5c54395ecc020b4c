// A call on its way: the engine's tokens in, its dialect's reply out.
#pragma once
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "model/prompt.h"
#include "model/reply.h"
#include "serve/dialect.h"
#include "serve/http_server.h"
#include "serve/metrics.h"
#include "serve/visit.h"

namespace hadal {

struct JobContext {  // outlives its jobs
  const Tokenizer& tokenizer;
  Metrics& metrics;
  bool content = false;                 // replies are kept for the log
  std::optional<CallStyle> calls = {};  // how the model writes calls of tools; none: it may call none
};

class Job : public std::enable_shared_from_this<Job> {  // after its requests have been submitted only the engine's thread touches it
 public:
  // stops: all that hold for this call.
  Job(const JobContext& context, const Call& call, const Dialect& dialect, std::unique_ptr<ReplyFormat> format,
      const std::vector<Prompt>& prompts, const std::vector<std::string>& stops, std::shared_ptr<Visit> visit,
      std::shared_ptr<HttpReply> reply);
  int64_t size() const { return int64_t(choices_.size()); }
  void attach(int64_t choice, Request& request);  // the request's tokens come here, which keep the job alive
  void open();                                    // all requests are fine: a stream begins
  void expire() { overdue_ = true; }              // its time is over: what is cancelled now was too slow. From any thread

 private:
  struct Choice {
    ReplyStream text;
    Delta said;  // whole replies: everything; streams: what comes with the next event
    int64_t prompt_tokens, tokens = 0;
    int64_t calls = 0;                                // of tools
    int64_t read = 0, cached = 0;                     // of the prompt
    std::chrono::steady_clock::time_point last = {};  // token
  };
  void take(Choice& choice, const std::vector<ReplyPiece>& pieces);
  void send(const std::string& events);
  void send(Choice& choice);
  void on_read(Choice& choice, int64_t read, int64_t cached);
  bool on_token(Choice& choice, const Token& token);
  void on_finish(Choice& choice, Finish how);
  void send_timeout();

  const JobContext context_;
  const Dialect& dialect_;
  const bool stream_, echoed_logprobs_, prompt_only_;
  const int64_t per_prompt_;          // choices
  std::vector<int32_t> stop_tokens_;  // told like others, where logprobs are; elsewhere the engine's
  const std::unique_ptr<ReplyFormat> format_;
  const std::shared_ptr<Visit> visit_;
  const std::shared_ptr<HttpReply> reply_;
  std::vector<Choice> choices_;
  Usage usage_;
  int64_t read_ = 0;  // of all prompts
  size_t finished_ = 0;
  bool lost_ = false;  // nobody reads any more
  std::atomic<bool> overdue_{false};
};

}  // namespace hadal
