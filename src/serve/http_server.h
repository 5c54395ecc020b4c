// HTTP/1.1 for a program that answers slowly and in pieces: one thread of coroutines takes connections, whoever computes answers from
// another thread. It knows nothing of models.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hadal {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct Visit;  // of whoever handles calls: this server does not look into it

struct HttpCall {
  std::string method, path;  // path: without the query. HEAD comes as GET, and the answer goes without its body
  HttpHeaders headers;
  std::string body;
  int refusal = 0;  // not 0: the server itself says no, with this status and the reason in `body`
  std::shared_ptr<Visit> visit = {};
  std::string query = {};                                // what stands behind the ?, as it came
  std::string_view header(std::string_view name) const;  // the first of that name, in whatever case; empty: there is none
};

class HttpReply {  // from any thread; whatever comes after the client has gone is dropped
 public:
  virtual ~HttpReply() = default;
  virtual void send(int status, std::string type, std::string body, HttpHeaders headers = {}) = 0;  // whole
  virtual void open(std::string type, HttpHeaders headers = {}) = 0;                                // status 200, in pieces
  virtual bool write(std::string piece) = 0;               // false: the client has gone, or does not read what is sent
  virtual void close(std::string last = {}) = 0;           // behind a last piece
  virtual bool gone() const = 0;                           // the client, before it had its whole answer
  virtual void when_gone(std::function<void()> call) = 0;  // at most once, on the server's thread
  virtual void call_at(std::chrono::steady_clock::time_point time, std::function<void()> call) = 0;  // unless it ends before; as when_gone
};

struct HttpLimits {
  size_t head_bytes = 16 << 10, body_bytes = 32 << 20, unread_bytes = 4 << 20;  // unread: written, not yet taken by the client
  int64_t connections = 4096;
  std::chrono::seconds idle{75}, body{60}, write{30};  // for a whole head, a whole body, one piece
  std::chrono::seconds drain{30};                      // for running replies after the first SIGTERM or SIGINT
};

class HttpServer {
 public:
  using Handler = std::function<void(HttpCall, std::shared_ptr<HttpReply>)>;  // called on the server's thread: must not compute
  // Listens at once. port 0: a free one. Error: the address cannot be had
  HttpServer(const std::string& host, uint16_t port, HttpLimits limits = {});
  ~HttpServer();
  uint16_t port() const;
  void stop();  // from any thread: run() returns, whatever is going on
  // Serves until SIGTERM or SIGINT came and what was running has been answered, its time is over, or a second signal came.
  // Call once. draining: told when the first signal comes. hangup: told of each SIGHUP.
  void run(Handler handler, std::function<void()> draining, std::function<void()> hangup);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hadal
