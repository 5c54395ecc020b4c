#include "cli/complete.h"

#include <fmt/format.h>

#include <chrono>

#include "cli/output.h"

namespace hadal {
namespace {
double seconds_between(std::chrono::steady_clock::time_point from, std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}
}  // namespace

Completion complete(Engine& engine, const Tokenizer& tokenizer, const CompletionRequest& asked, const ShowReply& show) {
  using Clock = std::chrono::steady_clock;
  Completion done;
  ReplyStream stream(tokenizer, asked.stops, asked.prompt.starts_in_reasoning, asked.separate_reasoning);
  const auto deliver = [&](const Token* token, const std::vector<ReplyPiece>& pieces) {
    for (const ReplyPiece& piece : pieces) (piece.kind == ReplyPiece::Kind::reasoning ? done.reasoning : done.answer) += piece.text;
    if (show) show(token, pieces);
  };

  const auto start = Clock::now();
  auto first = start, last = start;
  Request request;
  request.prompt = asked.prompt.tokens;
  request.sampling = asked.sampling;
  request.max_tokens = asked.max_tokens;
  request.keep = asked.keep;
  request.adapter = asked.adapter;
  request.logprobs = asked.logprobs;
  request.stop_tokens = asked.end_tokens;
  request.grammar = asked.grammar;
  if (asked.grammar && asked.prompt.starts_in_reasoning) request.free_until = {reasoning_end(tokenizer)};
  request.on_token = [&](const Token& token) {
    last = Clock::now();
    if (done.tokens.empty()) first = last;
    done.tokens.push_back(token);
    deliver(&token, stream.push(token.id));
    return !stream.stopped();
  };
  request.on_finish = [&](Finish finish) {
    if (finish == Finish::length) done.finish = "length";
    if (done.tokens.empty()) first = last = Clock::now();
  };
  const DraftFigures before = engine.drafts();
  const uint64_t id = engine.submit(std::move(request));
  bool cancelled = false;
  while (engine.step()) {
    if (!interrupted() || cancelled) continue;
    engine.cancel(id);
    cancelled = true;
  }
  if (!stream.stopped()) deliver(nullptr, stream.finish());
  if (cancelled) done.finish = "interrupted";
  done.prompt_tokens = int64_t(asked.prompt.tokens.size());
  done.prompt_seconds = seconds_between(start, first);
  done.reply_seconds = seconds_between(first, last);
  const DraftFigures after = engine.drafts();
  done.drafts = {after.drafted - before.drafted, after.accepted - before.accepted, after.passes - before.passes};
  return done;
}

std::string figures(const Completion& completion) {
  const auto plural = [](size_t count, const char* what) {
    return fmt::format("{} {}{}", with_commas(int64_t(count)), what, count == 1 ? "" : "s");
  };
  std::string line = fmt::format("{} at {}/s, {}", plural(size_t(completion.prompt_tokens), "prompt token"),
                                 as_rate(completion.prompt_rate()), plural(completion.tokens.size(), "token"));
  if (completion.tokens.size() > 1) line += fmt::format(" at {}/s", as_rate(completion.reply_rate()));
  if (const DraftFigures& d = completion.drafts; d.drafted > 0)
    line += fmt::format(", {} of {} guessed right", with_commas(d.accepted), with_commas(d.drafted));
  return line + ", finish: " + completion.finish;
}

void ReplyPrinter::show(std::span<const ReplyPiece> text) {
  for (const ReplyPiece& piece : text) {
    if (piece.text.empty()) continue;
    if (piece.kind == ReplyPiece::Kind::reasoning && !in_reasoning_) open_reasoning();
    if (piece.kind == ReplyPiece::Kind::answer && in_reasoning_) close_reasoning();
    put(piece.text);
    line_open_ = !piece.text.ends_with('\n');
  }
  flush_output();
}

void ReplyPrinter::open_reasoning() {
  const Style style = output_style();
  put(style.dim.empty() ? "<think>\n" : style.dim);
  in_reasoning_ = true;
}

void ReplyPrinter::close_reasoning() {
  const Style style = output_style();
  if (line_open_) put("\n");
  put(style.dim.empty() ? "</think>\n" : style.plain);
  put("\n");
  in_reasoning_ = line_open_ = false;
}

void ReplyPrinter::finish() {
  if (in_reasoning_) put(output_style().plain);
  if (line_open_) put("\n");
  in_reasoning_ = line_open_ = false;
  flush_output();
}

}  // namespace hadal
