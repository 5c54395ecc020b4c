// One file from a URL to its place: resumed where it stopped, verified, renamed when whole.
#pragma once
#include <filesystem>
#include <functional>
#include <string>

#include "model/http_client.h"

namespace hadal {

struct Digest {
  enum class Kind { none, sha256, git_blob };  // git_blob: sha1 of "blob SIZE\0" and the content
  Kind kind = Kind::none;
  std::string hex;
};

struct RemoteFile {
  std::string name;
  int64_t size = -1;  // -1: not said
  Digest digest;
};

struct Download {
  std::filesystem::path to;
  RemoteFile file;
  int attempts = 1;
  std::chrono::milliseconds first_pause{500};
  std::function<void(int64_t)> on_progress;  // bytes of this file so far
  HttpRequest request = {};
  bool trusted = false;  // a file of the right size that is already there needs no second look
};

// Leaves `to` whole or untouched; what was received of an unfinished file stays beside it, as NAME.part. Returns the server's last word:
// a status of 300 or more says that it refused. Error: the connection failed for good, or the content is not what was announced.
HttpHead fetch_file(const Download& download);
int64_t part_size(const std::filesystem::path& to);  // bytes of its .part

// Calls `attempt` until it neither loses its connection nor is told to come back later; pauses in between, each twice as long as the last.
// Where `gained` counts something, only attempts in a row that added nothing to it are counted.
HttpHead with_retries(int attempts, std::chrono::milliseconds first_pause, const std::function<HttpHead()>& attempt,
                      const std::function<int64_t()>& gained = {});

}  // namespace hadal
