// One reply on its way from the engine's thread to a reader on another: nothing here takes Python's lock.
#pragma once
#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "infer/engine.h"
#include "model/reply.h"

namespace hadal {

class ReplyQueue {
 public:
  struct Part {  // text of one kind with the tokens that made it readable
    ReplyPiece piece;
    std::vector<int32_t> ids;
  };
  struct Taken {
    std::vector<Part> parts;
    std::vector<Token> tokens;
    const char* finish = nullptr;  // stop, length or cancelled, with the last of it
    std::string problem;           // why it ended instead; empty: it did not
  };

  // ends: tokens that end the reply as stop tokens do, but are part of its ids
  explicit ReplyQueue(ReplyStream text, std::vector<int32_t> ends = {}) : text_(std::move(text)), ends_(std::move(ends)) {}
  ~ReplyQueue();

  // The engine's side.
  bool on_token(const Token& token);
  void on_finish(Finish how);
  void fail(const std::string& problem);  // unless it has ended

  // The reader's side.
  bool wait(double seconds);  // until there is something to take; false: not yet
  Taken take();               // what is there
  int descriptor();           // readable as long as there is something to take; made when first asked for. Error: no more to be had

 private:
  // With the lock.
  void add(std::vector<ReplyPiece> pieces);
  void tell();
  ReplyStream text_;
  const std::vector<int32_t> ends_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Taken news_;
  std::vector<int32_t> unread_;  // tokens whose text is held back: half a character, what may become a stop text
  bool fresh_ = false, ended_ = false;
  int event_ = -1;
};

}  // namespace hadal
