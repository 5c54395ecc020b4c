#include "serve/http_server.h"

#include <algorithm>
#include <atomic>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <csignal>
#include <mutex>
#include <optional>

#include "core/error.h"

namespace hadal {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using tcp = net::ip::tcp;
using beast::error_code;
constexpr auto result = net::as_tuple(net::use_awaitable);

// One request's answer: filled from any thread, sent by the connection's coroutine.
class Exchange : public HttpReply, public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(net::any_io_executor executor, size_t most_unread)
      : executor_(std::move(executor)), changed_(executor_, net::steady_timer::time_point::max()), most_unread_(most_unread) {}

  void send(int status, std::string type, std::string body, HttpHeaders headers) override {
    post([this, status, type = std::move(type), body = std::move(body), headers = std::move(headers)]() mutable {
      if (started) return;
      started = closed = true;
      head = {status, std::move(type), std::move(headers)};
      pending = std::move(body);
    });
  }
  void open(std::string type, HttpHeaders headers) override {
    post([this, type = std::move(type), headers = std::move(headers)]() mutable {
      if (started) return;
      started = streamed = true;
      headers.emplace_back("Cache-Control", "no-store");
      head = {200, std::move(type), std::move(headers)};
    });
  }
  bool write(std::string piece) override {
    if (gone_ || unread_ > most_unread_) return false;
    unread_ += piece.size();
    post([this, piece = std::move(piece)] { pending += piece; });
    return true;
  }
  void close(std::string last) override {
    post([this, last = std::move(last)] {
      pending += last;
      closed = true;
    });
  }
  bool gone() const override { return gone_; }
  void when_gone(std::function<void()> call) override {
    post([this, call = std::move(call)]() mutable {
      if (gone_) call();
      when_gone_ = std::move(call);
    });
  }
  void call_at(std::chrono::steady_clock::time_point time, std::function<void()> call) override {
    post([this, time, call = std::move(call)]() mutable {
      if (gone_ || closed) return;
      alarm_.emplace(executor_, time).async_wait([self = shared_from_this(), call = std::move(call)](error_code problem) {
        if (!problem && !self->gone_) call();
      });
    });
  }

  // What follows is for the connection's coroutine.
  struct Head {
    int status = 200;
    std::string type;
    HttpHeaders headers;
  };
  Head head;
  bool started = false, streamed = false, closed = false;
  std::string pending;  // of the body

  net::awaitable<void> wait() { co_await changed_.async_wait(result); }
  void sent(size_t bytes) { unread_ -= bytes; }
  void leave() {
    if (gone_.exchange(true)) return;
    if (when_gone_) when_gone_();
    changed_.cancel();
  }
  void forget() {
    when_gone_ = nullptr;
    alarm_.reset();
  }

 private:
  // Asio keeps what the server's own thread posts apart from what others do, so the order of changes is kept here.
  void post(std::function<void()> change) {
    {
      const std::lock_guard lock(mutex_);
      changes_.push_back(std::move(change));
    }
    net::post(executor_, [self = shared_from_this()] { self->apply_changes(); });
  }

  void apply_changes() {
    std::vector<std::function<void()>> changes;
    {
      const std::lock_guard lock(mutex_);
      changes.swap(changes_);
    }
    for (const auto& change : changes) change();
    changed_.cancel();
  }

  net::any_io_executor executor_;
  net::steady_timer changed_;
  const size_t most_unread_;
  std::mutex mutex_;  // guards what follows
  std::vector<std::function<void()>> changes_;

  std::atomic<size_t> unread_{0};
  std::atomic<bool> gone_{false};
  std::function<void()> when_gone_;
  std::optional<net::steady_timer> alarm_;
};

// Tells the exchange when the client closes its side before it has its answer.
void watch(const std::shared_ptr<beast::tcp_stream>& stream, const std::shared_ptr<Exchange>& exchange) {
  stream->socket().async_wait(tcp::socket::wait_read, [stream, exchange](error_code problem) {
    if (problem) return;
    char byte;
    stream->socket().receive(net::buffer(&byte, 1), tcp::socket::message_peek, problem);
    if (problem && problem != net::error::would_block) exchange->leave();
  });
}

}  // namespace

struct HttpServer::State {
  State(HttpLimits l) : limits(l), acceptor(context), signals(context), hangups(context), deadline(context) {}

  const HttpLimits limits;
  net::io_context context{1};
  tcp::acceptor acceptor;
  net::signal_set signals, hangups;
  net::steady_timer deadline;
  Handler handler;
  int64_t connections = 0, busy = 0;  // busy: with a request that has not been answered
  bool draining = false;

  void leave_if_drained() {
    if (draining && busy == 0) context.stop();
  }

  net::awaitable<void> accept() {
    for (;;) {
      auto [problem, socket] = co_await acceptor.async_accept(result);
      if (problem == net::error::operation_aborted || draining) co_return;
      if (problem || connections >= limits.connections) {  // too many open files, or clients: those that come later may have more luck
        net::steady_timer pause(context, std::chrono::milliseconds(problem ? 50 : 0));
        co_await pause.async_wait(result);
        continue;
      }
      net::co_spawn(context, talk(std::make_shared<beast::tcp_stream>(std::move(socket))), net::detached);
    }
  }

  net::awaitable<void> talk(std::shared_ptr<beast::tcp_stream> stream) {
    ++connections;
    error_code ignored;
    stream->socket().set_option(tcp::no_delay(true), ignored);
    stream->socket().non_blocking(true, ignored);
    beast::flat_buffer buffer;
    while (co_await take_turn(*stream, stream, buffer)) {
    }
    stream->socket().shutdown(tcp::socket::shutdown_send, ignored);
    --connections;
  }

  // One request and its answer; false: the connection has ended.
  net::awaitable<bool> take_turn(beast::tcp_stream& stream, const std::shared_ptr<beast::tcp_stream>& shared, beast::flat_buffer& buffer) {
    http::request_parser<http::string_body> parser;
    parser.header_limit(uint32_t(limits.head_bytes));
    parser.body_limit(limits.body_bytes);
    stream.expires_after(limits.idle);
    auto [problem, bytes] = co_await http::async_read_header(stream, buffer, parser, result);
    if (!problem && beast::iequals(parser.get()[http::field::expect], "100-continue")) {
      static constexpr std::string_view go_on = "HTTP/1.1 100 Continue\r\n\r\n";
      co_await net::async_write(stream, net::buffer(go_on), result);
    }
    if (!problem) {
      stream.expires_after(limits.body);
      std::tie(problem, bytes) = co_await http::async_read(stream, buffer, parser, result);
    }
    if (problem == http::error::end_of_stream || problem == http::error::partial_message || problem == beast::error::timeout)
      co_return false;
    const auto exchange = std::make_shared<Exchange>(context.get_executor(), limits.unread_bytes);
    const unsigned version = parser.get().version();
    const bool head_only = parser.get().method() == http::verb::head;
    bool keep_alive = !problem && parser.keep_alive() && !draining;
    ++busy;
    if (!problem) {
      hand_over(parser.release(), exchange, 0, "");
    } else if (problem == http::error::body_limit) {
      hand_over(parser.release(), exchange, 413, fmt::format("the body is larger than {} bytes", limits.body_bytes));
    } else if (problem == http::error::header_limit) {
      hand_over({}, exchange, 431, fmt::format("the head is larger than {} bytes", limits.head_bytes));
    } else if (problem.category() == make_error_code(http::error::bad_method).category()) {
      hand_over({}, exchange, 400, "this is no HTTP request: " + problem.message());
    } else {
      exchange->leave();  // the connection broke
    }
    if (!problem) watch(shared, exchange);
    const bool sent = co_await answer(stream, *exchange, version, keep_alive, head_only);
    if (!sent) exchange->leave();
    exchange->forget();
    error_code ignored;
    stream.socket().cancel(ignored);
    --busy;
    leave_if_drained();
    co_return sent&& keep_alive;
  }

  void hand_over(http::request<http::string_body> request, const std::shared_ptr<Exchange>& exchange, int refusal, std::string reason) {
    const std::string target(request.target());
    const std::string_view method = request.method() == http::verb::head ? "GET" : std::string_view(request.method_string());
    HttpCall call{std::string(method), target.substr(0, target.find('?')), {}, std::move(request.body()), refusal};
    if (refusal != 0) call.body = std::move(reason);
    if (const size_t mark = target.find('?'); mark != target.npos) call.query = target.substr(mark + 1);
    for (const auto& field : request) call.headers.emplace_back(field.name_string(), field.value());
    try {
      handler(std::move(call), exchange);
    } catch (const std::exception& e) {
      exchange->send(500, "application/json", R"({"error":{"message":"the server failed","type":"server_error","param":null,"code":null}})",
                     {});
    }
  }

  net::awaitable<bool> answer(beast::tcp_stream& stream, Exchange& exchange, unsigned version, bool keep_alive, bool head_only) {
    stream.expires_never();
    while (!exchange.started && !exchange.gone()) co_await exchange.wait();
    if (!exchange.started) co_return false;
    http::response<http::string_body> whole{http::status::ok, version};
    whole.result(unsigned(exchange.head.status));
    whole.set(http::field::server, "hadal");
    whole.set(http::field::content_type, exchange.head.type);
    for (const auto& [name, value] : exchange.head.headers) whole.set(name, value);
    whole.keep_alive(keep_alive);
    stream.expires_after(limits.write);
    if (!exchange.streamed) {
      if (exchange.head.type.empty()) whole.erase(http::field::content_type);
      whole.body() = std::move(exchange.pending);
      if (exchange.head.status != 304) whole.prepare_payload();  // a length would be that of the text which is not sent
      if (head_only) {
        http::response_serializer<http::string_body> only{whole};
        const auto [problem, bytes] = co_await http::async_write_header(stream, only, result);
        co_return !problem;
      }
      const auto [problem, bytes] = co_await http::async_write(stream, whole, result);
      co_return !problem;
    }
    const bool chunked = version >= 11;
    http::response<http::empty_body> head{whole.base()};
    head.chunked(chunked);
    http::response_serializer<http::empty_body> serializer{head};
    const auto [head_problem, head_bytes] = co_await http::async_write_header(stream, serializer, result);
    if (head_problem) co_return false;
    for (;;) {
      stream.expires_never();
      while (exchange.pending.empty() && !exchange.closed && !exchange.gone()) co_await exchange.wait();
      if (exchange.gone()) co_return false;
      if (exchange.pending.empty()) break;
      const std::string piece = std::exchange(exchange.pending, {});
      stream.expires_after(limits.write);
      error_code problem;
      size_t bytes = 0;
      if (chunked) {
        std::tie(problem, bytes) = co_await net::async_write(stream, http::make_chunk(net::buffer(piece)), result);
      } else {
        std::tie(problem, bytes) = co_await net::async_write(stream, net::buffer(piece), result);
      }
      if (problem) co_return false;
      exchange.sent(piece.size());
    }
    if (!chunked) co_return false;  // its end is the connection's
    stream.expires_after(limits.write);
    const auto [problem, bytes] = co_await net::async_write(stream, http::make_chunk_last(), result);
    co_return !problem;
  }

  void on_hangup(const std::function<void()>& told) {
    hangups.async_wait([this, told](error_code problem, int) {
      if (problem) return;
      told();
      on_hangup(told);
    });
  }

  void on_signal(const std::function<void()>& told) {
    signals.async_wait([this, told](error_code problem, int) {
      if (problem) return;
      if (draining) return context.stop();
      draining = true;
      error_code ignored;
      acceptor.close(ignored);
      told();
      on_signal(told);
      deadline.expires_after(limits.drain);
      deadline.async_wait([this](error_code e) {
        if (!e) context.stop();
      });
      leave_if_drained();
    });
  }
};

HttpServer::HttpServer(const std::string& host, uint16_t port, HttpLimits limits) : state_(std::make_unique<State>(limits)) {
  State& s = *state_;
  error_code problem;
  const auto found = tcp::resolver(s.context).resolve(host, std::to_string(port), tcp::resolver::passive, problem);
  if (problem) throw Error("cannot listen: the host '{}' is not known ({})", host, problem.message());
  const tcp::endpoint endpoint = found.begin()->endpoint();
  s.acceptor.open(endpoint.protocol(), problem);
  if (!problem) s.acceptor.set_option(tcp::acceptor::reuse_address(true), problem);
  if (!problem) s.acceptor.bind(endpoint, problem);
  if (!problem) s.acceptor.listen(net::socket_base::max_listen_connections, problem);
  if (problem) throw Error("cannot listen at {}:{}: {}", host, port, problem.message());
}

HttpServer::~HttpServer() = default;

uint16_t HttpServer::port() const { return state_->acceptor.local_endpoint().port(); }

void HttpServer::stop() {
  net::post(state_->context, [this] { state_->context.stop(); });
}

void HttpServer::run(Handler handler, std::function<void()> draining, std::function<void()> hangup) {
  State& s = *state_;
  s.handler = std::move(handler);
  s.signals.add(SIGINT);
  s.signals.add(SIGTERM);
  s.on_signal(draining);
  s.hangups.add(SIGHUP);
  s.on_hangup(hangup);
  net::co_spawn(s.context, s.accept(), net::detached);
  s.context.run();
}

}  // namespace hadal
