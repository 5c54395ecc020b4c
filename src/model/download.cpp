#include "model/download.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "core/error.h"

namespace hadal {
namespace {
namespace fs = std::filesystem;

fs::path part_of(const fs::path& to) {
  fs::path part = to;
  return part += ".part";
}

class OwnFile {  // a descriptor that only one process at a time holds
 public:
  explicit OwnFile(const fs::path& path) : path_(path), fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    if (fd_ < 0) throw Error("cannot write {}: {}", path.string(), std::strerror(errno));
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      ::close(fd_);
      throw Error("{} is being written by another process: wait for it, or end it", path.string());
    }
  }
  ~OwnFile() { ::close(fd_); }
  OwnFile(const OwnFile&) = delete;
  OwnFile& operator=(const OwnFile&) = delete;

  int64_t size() const {
    struct stat info {};
    return ::fstat(fd_, &info) == 0 ? info.st_size : 0;
  }
  void cut(int64_t size) {
    if (::ftruncate(fd_, size) != 0) fail("cut");
  }
  void append(std::string_view bytes) {
    if (::lseek(fd_, 0, SEEK_END) < 0) fail("write");
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail("write");
      bytes.remove_prefix(size_t(n));
    }
  }
  void move_to(const fs::path& to) {
    if (::fsync(fd_) != 0) fail("write");
    if (::rename(path_.c_str(), to.c_str()) != 0) fail("rename");
  }

 private:
  [[noreturn]] void fail(const char* doing) const { throw Error("cannot {} {}: {}", doing, path_.string(), std::strerror(errno)); }
  fs::path path_;
  int fd_;
};

std::string digest_of(const fs::path& path, Digest::Kind kind) {
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  CHECK(context && EVP_DigestInit_ex(context.get(), kind == Digest::Kind::sha256 ? EVP_sha256() : EVP_sha1(), nullptr) == 1);
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rbe"), std::fclose);
  if (!file) throw Error("cannot read {}: {}", path.string(), std::strerror(errno));
  if (kind == Digest::Kind::git_blob) {
    const std::string head = fmt::format("blob {}", fs::file_size(path));
    EVP_DigestUpdate(context.get(), head.c_str(), head.size() + 1);  // with its NUL
  }
  std::vector<char> piece(1 << 20);
  while (const size_t n = std::fread(piece.data(), 1, piece.size(), file.get())) EVP_DigestUpdate(context.get(), piece.data(), n);
  if (std::ferror(file.get())) throw Error("cannot read {}: {}", path.string(), std::strerror(errno));
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned count = 0;
  EVP_DigestFinal_ex(context.get(), bytes, &count);
  std::string hex;
  for (unsigned i = 0; i < count; ++i) hex += fmt::format("{:02x}", bytes[i]);
  return hex;
}

// What is wrong with the content, in words; empty: nothing.
std::string difference(const fs::path& path, const RemoteFile& file) {
  const auto size = int64_t(fs::file_size(path));
  if (file.size >= 0 && size != file.size) return fmt::format("expected {} bytes, found {}", file.size, size);
  if (file.digest.kind == Digest::Kind::none) return "";
  const std::string found = digest_of(path, file.digest.kind);
  if (found == file.digest.hex) return "";
  return fmt::format("expected {} {}, found {}", file.digest.kind == Digest::Kind::sha256 ? "sha256" : "git blob", file.digest.hex, found);
}

bool is_there(const Download& download) {
  std::error_code ignored;
  if (!fs::is_regular_file(download.to, ignored)) return false;
  if (download.trusted && int64_t(fs::file_size(download.to)) == download.file.size) return true;
  const bool said = download.file.size >= 0 && download.file.digest.kind != Digest::Kind::none;
  return said && difference(download.to, download.file).empty();
}

// One request for what is missing of `part`.
HttpHead continue_part(const Download& download, OwnFile& part) {
  const int64_t announced = download.file.size;
  HttpRequest request = download.request;
  request.first_byte = part.size();
  int64_t received = request.first_byte;
  const HttpHead head = http_get(
      request,
      [&](const HttpHead& reply) {
        const bool continues = reply.status == 206 && reply.range_start == request.first_byte;
        if (reply.status == 206 && !continues)
          throw Error("{}: expected a reply from byte {} on, found another range", request.url.text(), request.first_byte);
        if (reply.status == 200 && received > 0) {  // this server knows no ranges
          part.cut(0);
          received = 0;
        }
        return true;
      },
      [&](std::string_view piece) {
        received += int64_t(piece.size());
        if (announced >= 0 && received > announced) throw Error("{}: expected {} bytes, found more", request.url.text(), announced);
        part.append(piece);
        if (download.on_progress) download.on_progress(received);
      });
  if (head.status < 300 && announced >= 0 && received < announced)
    throw ConnectionError("{}: the reply ended after {} of {} bytes", request.url.text(), received, announced);
  return head;
}

HttpHead complete_part(const Download& download, OwnFile& part) {
  if (download.file.size >= 0 && part.size() == download.file.size) return {200, {}, {}, {}, 0};
  return with_retries(
      download.attempts, download.first_pause, [&] { return continue_part(download, part); }, [&] { return part.size(); });
}

}  // namespace

int64_t part_size(const fs::path& to) {
  std::error_code absent;
  const auto size = fs::file_size(part_of(to), absent);
  return absent ? 0 : int64_t(size);
}

HttpHead with_retries(int attempts, std::chrono::milliseconds first_pause, const std::function<HttpHead()>& attempt,
                      const std::function<int64_t()>& gained) {
  auto pause = first_pause;
  int64_t before = gained ? gained() : 0;
  for (int left = std::max(attempts, 1) - 1;; --left) {
    auto wait = pause;
    try {
      HttpHead head = attempt();
      const bool later = head.status == 408 || head.status == 429 || head.status >= 500;
      if (!later || left <= 0) return head;
      wait = std::max(wait, std::min(std::chrono::milliseconds(head.retry_after * 1000), std::chrono::milliseconds(120'000)));
    } catch (const ConnectionError&) {
      const int64_t now = gained ? gained() : 0;
      if (now > before) {
        left = std::max(attempts, 1);
        wait = pause = first_pause;
      }
      before = std::max(before, now);  // a server without ranges starts over, which is no gain
      if (left <= 0) throw;
    }
    std::this_thread::sleep_for(wait);
    pause = std::min(pause * 2, std::chrono::milliseconds(30'000));
  }
}

HttpHead fetch_file(const Download& download) {
  if (is_there(download)) {
    if (download.on_progress) download.on_progress(std::max<int64_t>(download.file.size, 0));
    return {200, {}, {}, {}, 0};
  }
  fs::create_directories(download.to.parent_path());
  const fs::path path = part_of(download.to);
  OwnFile part(path);
  const bool resumed = part.size() > 0;
  if (download.file.size >= 0 && part.size() > download.file.size) part.cut(0);
  HttpHead head = complete_part(download, part);
  if (head.status == 416 || head.status < 300) {
    std::string wrong = head.status == 416 ? "expected less" : difference(path, download.file);
    if (!wrong.empty() && resumed) {  // perhaps what lay there was a part of another file
      part.cut(0);
      head = complete_part(download, part);
      wrong = head.status < 300 ? difference(path, download.file) : "";
    }
    if (!wrong.empty()) {
      part.cut(0);
      fs::remove(path);
      throw Error("{} is not the file that the hub announced: {}", download.file.name, wrong);
    }
  }
  if (head.status < 300) {
    part.move_to(download.to);
  } else if (part.size() == 0) {
    fs::remove(path);
  }
  return head;
}

}  // namespace hadal
