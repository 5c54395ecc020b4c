#include "model/http_client.h"

#include <algorithm>
#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <cctype>
#include <charconv>

namespace hadal {
namespace {
namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;

constexpr int most_redirects = 10;

std::optional<int64_t> to_integer(std::string_view text) {
  int64_t value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc() || end != text.data() + text.size() || value < 0) return {};
  return value;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  return text;
}

bool has_controls(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](unsigned char c) { return c <= ' ' || c == 0x7f; });
}

// Runs one asynchronous operation to its end, so that the stream's time limit counts. Returns its error.
template <class Start>
error_code finish(net::io_context& context, Start&& start) {
  error_code result = net::error::operation_aborted;
  start([&result](error_code failure, auto&&...) { result = failure; });
  context.restart();
  context.run();
  return result;
}

struct Exchange {  // what both kinds of connection are given
  const HttpRequest& request;
  const Url& url;
  bool send_token;
  const std::function<bool(const HttpHead&)>& on_head;
  const std::function<void(std::string_view)>& on_body;
};

struct Reply {
  HttpHead head;
  std::string location;  // of a redirect
};

[[noreturn]] void lost(const Url& url, const std::string& doing, const error_code& failure) {
  const bool late = failure == beast::error::timeout;
  throw ConnectionError("{}://{}:{}: {}: {}", url.scheme, url.host, url.port, doing, late ? "no answer in time" : failure.message());
}

HttpHead head_of(const http::response<http::buffer_body>& response, std::optional<int64_t> length) {
  HttpHead head;
  head.status = response.result_int();
  head.length = length;
  const auto text = [&](const char* field) { return std::string(response[field]); };
  head.message = text("X-Error-Message").substr(0, 300);
  head.retry_after = std::min<int64_t>(to_integer(text("Retry-After")).value_or(0), 3600);
  const std::string range = text("Content-Range");  // bytes 5-9/10
  if (range.starts_with("bytes ")) head.range_start = to_integer(std::string_view(range).substr(6, range.find('-') - 6));
  return head;
}

http::request<http::empty_body> head_for(const Exchange& exchange) {
  const Url& url = exchange.url;
  http::request<http::empty_body> get(http::verb::get, url.target, 11);
  const bool v6 = url.host.find(':') != std::string::npos, usual = url.port == (url.scheme == "https" ? "443" : "80");
  get.set(http::field::host, (v6 ? "[" + url.host + "]" : url.host) + (usual ? "" : ":" + url.port));
  get.set(http::field::user_agent, "hadal/0.1");
  get.set(http::field::accept_encoding, "identity");  // what is counted and hashed is the file itself
  get.set(http::field::connection, "close");
  if (exchange.send_token) get.set(http::field::authorization, "Bearer " + exchange.request.token);
  if (exchange.request.first_byte > 0) get.set(http::field::range, fmt::format("bytes={}-", exchange.request.first_byte));
  return get;
}

template <class Stream>
Reply talk(net::io_context& context, Stream& stream, const Exchange& exchange) {
  const Url& url = exchange.url;
  const auto renew = [&] { beast::get_lowest_layer(stream).expires_after(exchange.request.patience); };
  auto get = head_for(exchange);
  renew();
  if (const auto failure = finish(context, [&](auto done) { http::async_write(stream, get, done); }))
    lost(url, "sending the request", failure);

  beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  parser.header_limit(64 << 10);
  renew();
  if (const auto failure = finish(context, [&](auto done) { http::async_read_header(stream, buffer, parser, done); }))
    lost(url, "waiting for the reply", failure);

  const auto length = parser.content_length();
  Reply reply{head_of(parser.get(), length ? std::optional(int64_t(*length)) : std::nullopt),
              std::string(parser.get()[http::field::location])};
  if (reply.head.status >= 300 && reply.head.status < 400 && !reply.location.empty()) return reply;
  const bool wanted = exchange.on_head(reply.head);
  if (!wanted || (reply.head.status != 200 && reply.head.status != 206)) return reply;

  std::array<char, 1 << 16> piece;
  while (!parser.is_done()) {
    auto& body = parser.get().body();
    body.data = piece.data();
    body.size = piece.size();
    renew();
    auto failure = finish(context, [&](auto done) { http::async_read_some(stream, buffer, parser, done); });
    if (failure == http::error::need_buffer) failure = {};
    exchange.on_body({piece.data(), piece.size() - body.size});
    if (failure) lost(url, "reading the reply", failure);
  }
  return reply;
}

Reply exchange_with(const Exchange& exchange) {
  const Url& url = exchange.url;
  net::io_context context;
  error_code failure;
  const auto addresses = net::ip::tcp::resolver(context).resolve(url.host, url.port, failure);
  if (failure) lost(url, "looking up the host", failure);
  const auto connect = [&](beast::tcp_stream& stream) {
    stream.expires_after(exchange.request.patience);
    if (const auto refused = finish(context, [&](auto done) { stream.async_connect(addresses, done); })) lost(url, "connecting", refused);
  };
  if (url.scheme == "http") {
    beast::tcp_stream stream(context);
    connect(stream);
    return talk(context, stream, exchange);
  }

  net::ssl::context tls(net::ssl::context::tls_client);
  tls.set_options(net::ssl::context::default_workarounds | net::ssl::context::no_sslv2 | net::ssl::context::no_sslv3 |
                  net::ssl::context::no_tlsv1 | net::ssl::context::no_tlsv1_1);
  tls.set_default_verify_paths(failure);
  tls.set_verify_mode(net::ssl::verify_peer);
  tls.set_verify_callback(net::ssl::host_name_verification(url.host));
  beast::ssl_stream<beast::tcp_stream> stream(context, tls);
  SSL_set_tlsext_host_name(stream.native_handle(), url.host.c_str());  // fails for a host that is an address, which needs no name
  connect(beast::get_lowest_layer(stream));
  if (const auto refused = finish(context, [&](auto done) { stream.async_handshake(net::ssl::stream_base::client, done); }))
    lost(url, "agreeing on TLS (is the server's certificate trusted? SSL_CERT_FILE names more)", refused);
  return talk(context, stream, exchange);
}

// Path and query without what would break the request line.
std::string checked_target(const std::string& target, const std::string& text) {
  if (has_controls(target)) throw Error("{}: expected an address without spaces or control characters", text);
  const std::string path = target.substr(0, target.find('#'));
  return path.empty() || path.front() != '/' ? "/" + path : path;
}

}  // namespace

std::string Url::text() const {
  return scheme + "://" + (host.find(':') != std::string::npos ? "[" + host + "]" : host) + ":" + port + target;
}

Url parse_url(const std::string& text) {
  const size_t colon = text.find("://");
  Url url;
  url.scheme = lower(text.substr(0, colon == std::string::npos ? 0 : colon));
  if (url.scheme != "http" && url.scheme != "https")
    throw Error("\"{}\": expected an address that starts with https:// or http://", text.substr(0, 200));
  const size_t start = colon + 3, end = std::min(text.find_first_of("/?#", start), text.size());
  std::string place = lower(text.substr(start, end - start));
  if (place.find('@') != std::string::npos) throw Error("\"{}\": expected an address without a user name", text.substr(0, 200));
  const size_t bracket = place.find(']');
  const size_t port = place.find(':', bracket == std::string::npos ? 0 : bracket);
  url.port = port == std::string::npos ? (url.scheme == "https" ? "443" : "80") : place.substr(port + 1);
  url.host = place.substr(0, port);
  if (url.host.starts_with('[') && url.host.ends_with(']')) url.host = url.host.substr(1, url.host.size() - 2);
  const auto number = to_integer(url.port);
  if (url.host.empty() || has_controls(url.host) || !number || *number < 1 || *number > 65535)
    throw Error("\"{}\": expected a host and perhaps a port after ://", text.substr(0, 200));
  url.target = checked_target(text.substr(end), text);
  return url;
}

Url resolve_url(const Url& base, const std::string& reference) {
  if (reference.find("://") < reference.find_first_of("/?#")) return parse_url(reference);
  if (reference.starts_with("//")) return parse_url(base.scheme + ":" + reference);
  Url url = base;
  const std::string path = base.target.substr(0, base.target.find_first_of("?#"));
  const std::string target = reference.starts_with('/') ? reference : path.substr(0, path.rfind('/') + 1) + reference;
  url.target = checked_target(target, reference);
  return url;
}

HttpHead http_get(const HttpRequest& request, const std::function<bool(const HttpHead&)>& on_head,
                  const std::function<void(std::string_view)>& on_body) {
  if (has_controls(request.token)) throw Error("the hub token holds spaces or control characters");
  Url url = request.url;
  for (int hop = 0; hop <= most_redirects; ++hop) {
    const bool send_token = !request.token.empty() && url.same_origin(request.url);
    Reply reply = exchange_with({request, url, send_token, on_head, on_body});
    if (reply.location.empty() || reply.head.status < 300 || reply.head.status >= 400) return reply.head;
    Url next = resolve_url(url, reply.location);
    if (url.scheme == "https" && next.scheme == "http") throw Error("{} redirects to {}, which is not encrypted", url.text(), next.text());
    url = next;
  }
  throw Error("{}: more than {} redirects", request.url.text(), most_redirects);
}

}  // namespace hadal
