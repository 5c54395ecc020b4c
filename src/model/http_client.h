// A plain HTTP/1.1 client for downloads: TLS with verified certificates, redirects, ranges, time limits. One request, one connection.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.h"

namespace hadal {

struct Url {                               // http or https only
  std::string scheme, host, port, target;  // host without the brackets of an IPv6 address; target: path and query
  bool same_origin(const Url& other) const { return scheme == other.scheme && host == other.host && port == other.port; }
  std::string text() const;
};
Url parse_url(const std::string& text);                          // Error: names the text and what is wrong
Url resolve_url(const Url& base, const std::string& reference);  // a Location header, relative or absolute

struct HttpHead {
  int status = 0;
  std::optional<int64_t> length;       // of the body, when announced
  std::optional<int64_t> range_start;  // first byte of a 206 reply, counted in the whole file
  std::string message;                 // the server's own words about a failure, when it has any
  int64_t retry_after = 0;             // seconds the server asks to wait; 0: it does not
};

struct HttpRequest {
  Url url;
  std::string token;                  // sent as a bearer token to the origin of `url` only, never to another that it redirects to
  int64_t first_byte = 0;             // more than 0: asks for the rest of the file from there
  std::chrono::seconds patience{60};  // without a single byte moving
};

class ConnectionError : public Error {  // worth another try, unlike what the server said in full
 public:
  using Error::Error;
};

// GETs and follows redirects. Of the final reply `on_head` hears first (return false: the body is not wanted), then `on_body` piece by
// piece, but only of a 200 or 206. Whatever the callbacks throw comes through.
HttpHead http_get(const HttpRequest& request, const std::function<bool(const HttpHead&)>& on_head,
                  const std::function<void(std::string_view)>& on_body);

}  // namespace hadal
