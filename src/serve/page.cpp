#include "serve/page.h"

#include <algorithm>

#include "serve/page_files.h"

namespace hadal {
namespace {

// Nothing from elsewhere, no script but our files, no text that becomes markup, in nobody's frame.
constexpr const char* policy =
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'";

HttpHeaders headers_of(const std::string& tag) {
  return {{"ETag", tag},
          {"Cache-Control", "no-cache"},  // asks again each time, and hears 304 while the program is the same
          {"Content-Security-Policy", policy},
          {"X-Content-Type-Options", "nosniff"},
          {"Referrer-Policy", "no-referrer"},
          {"Cross-Origin-Opener-Policy", "same-origin"},
          {"Cross-Origin-Resource-Policy", "same-origin"}};
}

// If-None-Match: a list of tags, weak ones too, or *.
bool names(std::string_view list, std::string_view tag) { return list == "*" || list.find(tag) != std::string_view::npos; }

}  // namespace

int send_page(const HttpCall& call, HttpReply& reply) {
  if (call.method != "GET") return 0;
  const auto files = page_files();
  const auto file = std::ranges::find(files, call.path, &PageFile::path);
  if (file == files.end()) return 0;
  const std::string tag = '"' + std::string(file->hash.substr(0, 32)) + '"';
  const bool known = names(call.header("If-None-Match"), tag);
  const int status = known ? 304 : 200;
  reply.send(status, std::string(file->type), known ? "" : std::string(file->text), headers_of(tag));
  return status;
}

}  // namespace hadal
