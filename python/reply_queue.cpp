#include "python/reply_queue.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace hadal {

ReplyQueue::~ReplyQueue() {
  if (event_ >= 0) ::close(event_);
}

void ReplyQueue::tell() {
  fresh_ = true;
  changed_.notify_all();
  if (event_ >= 0) ::eventfd_write(event_, 1);
}

void ReplyQueue::add(std::vector<ReplyPiece> pieces) {
  for (ReplyPiece& piece : pieces) {
    if (piece.text.empty()) continue;
    if (news_.parts.empty() || news_.parts.back().piece.kind != piece.kind) news_.parts.push_back({{piece.kind, ""}, {}});
    Part& part = news_.parts.back();
    part.piece.text += piece.text;
    part.ids.insert(part.ids.end(), unread_.begin(), unread_.end());
    unread_.clear();
  }
}

bool ReplyQueue::on_token(const Token& token) {
  const std::lock_guard lock(mutex_);
  news_.tokens.push_back(token);
  unread_.push_back(token.id);
  const bool is_end = std::ranges::find(ends_, token.id) != ends_.end();
  if (!is_end) add(text_.push(token.id));
  tell();
  return !is_end && !text_.stopped();
}

void ReplyQueue::on_finish(Finish how) {
  const std::lock_guard lock(mutex_);
  if (ended_) return;
  if (!text_.stopped()) add(text_.finish());
  news_.finish = how == Finish::length ? "length" : how == Finish::cancelled ? "cancelled" : "stop";
  ended_ = true;
  tell();
}

void ReplyQueue::fail(const std::string& problem) {
  const std::lock_guard lock(mutex_);
  if (ended_) return;
  news_.problem = problem;
  ended_ = true;
  tell();
}

bool ReplyQueue::wait(double seconds) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return fresh_; });
}

ReplyQueue::Taken ReplyQueue::take() {
  const std::lock_guard lock(mutex_);
  if (event_ >= 0 && fresh_) {
    eventfd_t ignored;
    ::eventfd_read(event_, &ignored);
  }
  fresh_ = false;
  return std::exchange(news_, {});
}

int ReplyQueue::descriptor() {
  const std::lock_guard lock(mutex_);
  if (event_ >= 0) return event_;
  event_ = ::eventfd(fresh_ ? 1 : 0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event_ < 0) throw Error("no descriptor for a reply: {}", std::strerror(errno));
  return event_;
}

}  // namespace hadal
