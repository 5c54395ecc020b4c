#include "serve/job.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point from) { return std::chrono::duration<double>(Clock::now() - from).count(); }

}  // namespace

Job::Job(const JobContext& context, const Call& call, const Dialect& dialect, std::unique_ptr<ReplyFormat> format,
         const std::vector<Prompt>& prompts, const std::vector<std::string>& stops, std::shared_ptr<Visit> visit,
         std::shared_ptr<HttpReply> reply)
    : context_(context),
      dialect_(dialect),
      stream_(call.stream),
      echoed_logprobs_(call.echo && call.logprobs >= 0),
      prompt_only_(call.prompt_only),
      per_prompt_(call.choices),
      format_(std::move(format)),
      visit_(std::move(visit)),
      reply_(std::move(reply)) {
  choices_.reserve(prompts.size() * size_t(call.choices));
  for (const Prompt& prompt : prompts) {
    usage_.prompt += int64_t(prompt.tokens.size());
    for (int64_t i = 0; i < call.choices; ++i) {
      choices_.push_back({ReplyStream(context.tokenizer, stops, prompt.starts_in_reasoning, dialect.chat, context.calls),
                          {},
                          int64_t(prompt.tokens.size())});
      choices_.back().said.choice = size() - 1;
      if (call.echo) choices_.back().said.text = context.tokenizer.decode(prompt.tokens);
    }
  }
}

void Job::attach(int64_t index, Request& request) {
  Choice* choice = &choices_[size_t(index)];
  request.on_token = [job = shared_from_this(), choice](const Token& token) { return job->on_token(*choice, token); };
  if (index % per_prompt_ == 0)
    request.on_read = [job = shared_from_this(), choice](int64_t read, int64_t cached) { job->on_read(*choice, read, cached); };
  if (echoed_logprobs_) {  // who judges texts counts tokens: the one that ends the reply is told too
    stop_tokens_ = std::exchange(request.stop_tokens, {});
    request.on_prompt_token = [choice](const Token& token) {
      choice->said.logprobs.push_back(token.logprobs.empty() ? std::vector<Logprob>{{token.id, NAN}} : token.logprobs);
    };
  }
  request.on_finish = [job = shared_from_this(), choice](Finish how) { job->on_finish(*choice, how); };
}

void Job::open() {
  if (!stream_) return;
  reply_->open("text/event-stream");
  send(format_->begin(usage_));
}

void Job::send(const std::string& events) {
  if (!events.empty()) lost_ |= !reply_->write(events);
}

void Job::send(Choice& choice) {
  if (context_.content && choice.said.end == End::none) visit_->answered += choice.said.reasoning + choice.said.text;
  send(format_->delta(choice.said));
  const int64_t index = choice.said.choice;
  choice.said = {};
  choice.said.choice = index;
}

void Job::take(Choice& choice, const std::vector<ReplyPiece>& pieces) {
  using Kind = ReplyPiece::Kind;
  Delta& said = choice.said;
  for (const ReplyPiece& piece : pieces) {
    if (piece.kind == Kind::reasoning) said.reasoning += piece.text;
    if (piece.kind == Kind::answer) said.text += piece.text;
    if (piece.kind == Kind::call) said.tool_calls.push_back({choice.calls++, new_id("call_"), piece.text, ""});
    if (piece.kind != Kind::arguments) continue;
    if (said.tool_calls.empty()) said.tool_calls.push_back({choice.calls - 1, "", "", ""});
    said.tool_calls.back().arguments += piece.text;
  }
}

void Job::on_read(Choice& choice, int64_t read, int64_t cached) {
  if (!visit_->begun) {
    visit_->begun = Clock::now();
    context_.metrics.begun(seconds_since(visit_->arrival));
  }
  read_ += read - std::exchange(choice.read, read);
  usage_.cached += cached - std::exchange(choice.cached, cached);
  visit_->cached_tokens = usage_.cached;
  if (stream_) send(format_->progress(read_, usage_));
}

bool Job::on_token(Choice& choice, const Token& token) {
  if (prompt_only_) return false;
  if (++choice.tokens == 1)
    context_.metrics.prompt_read(choice.prompt_tokens, seconds_since(visit_->arrival));
  else
    context_.metrics.token_followed(seconds_since(choice.last));
  choice.last = Clock::now();
  if (!visit_->first_token) visit_->first_token = choice.last;
  if (visit_->deadline && choice.last > *visit_->deadline) overdue_ = true;
  if (!token.logprobs.empty()) choice.said.logprobs.push_back(token.logprobs);
  if (std::ranges::find(stop_tokens_, token.id) != stop_tokens_.end()) return false;
  usage_.reasoning += choice.text.in_reasoning();
  take(choice, choice.text.push(token.id));
  if (stream_ && !choice.said.empty() && !choice.text.stopped()) send(choice);
  return !choice.text.stopped() && !lost_ && !overdue_;
}

void Job::on_finish(Choice& choice, Finish how) {
  if (prompt_only_ && how == Finish::stop) how = Finish::length;
  const bool late = overdue_ && !choice.text.stopped() && how != Finish::length;
  if (!choice.text.stopped()) take(choice, choice.text.finish());
  choice.said.end = how == Finish::length || late ? End::length : choice.text.stopped() ? End::stop_text : End::stop;
  if (choice.said.end == End::stop && choice.calls > 0) choice.said.end = End::tool_calls;
  choice.said.stop = choice.text.stop();
  usage_.reply += choice.tokens;
  const bool left = lost_ || (how == Finish::cancelled && !late);
  visit_->reply_tokens = usage_.reply;
  visit_->finish = left ? "cancelled" : late ? "timeout" : how == Finish::length ? "length" : "stop";
  context_.metrics.reply_ended(choice.tokens, seconds_since(visit_->arrival), visit_->finish);
  if (context_.content) visit_->answered += choice.said.reasoning + choice.said.text;
  ++finished_;
  if (left) return;
  if (late && usage_.reply == 0) {
    if (finished_ == choices_.size()) send_timeout();
    return;
  }
  if (stream_) send(choice);
  if (finished_ < choices_.size()) return;
  if (stream_) return reply_->close(format_->end(usage_));
  std::vector<Delta> said;
  for (Choice& one : choices_) said.push_back(std::move(one.said));
  reply_->send(200, "application/json", format_->whole(said, usage_));
}

// Nothing has come in the time that there was. What has come is an answer, which ends like one that was too long.
void Job::send_timeout() {
  const std::string error = dialect_.error(ApiError(408, "no token came within the time that this request has", "timeout", "timeout"));
  if (stream_) return reply_->close(format_->failure(error));
  reply_->send(408, "application/json", error);
}

}  // namespace hadal
