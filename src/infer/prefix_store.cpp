#include "infer/prefix_store.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <memory>

#include "core/error.h"
#include "core/files.h"

namespace hadal {
namespace fs = std::filesystem;
namespace {

class Digest {
 public:
  Digest() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }
  Digest& add(const void* data, size_t bytes) {
    CHECK(EVP_DigestUpdate(context_.get(), data, bytes) == 1);
    return *this;
  }
  PrefixKey key() {
    PrefixKey key;
    unsigned count = 0;
    CHECK(EVP_DigestFinal_ex(context_.get(), key.data(), &count) == 1 && count == key.size());
    return key;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
};

constexpr const char* extension = ".pages";

// A file: this, then the pages one behind the other.
struct Head {
  char magic[8] = {'h', 'a', 'd', 'a', 'l', 'k', 'v', '1'};
  PrefixKey key{}, digest{};  // digest: of what follows
  int64_t bytes = 0, drafted = 0;
};

PrefixKey digest_of(const std::vector<std::span<std::byte>>& memory) {
  Digest digest;
  for (const std::span<std::byte> part : memory) digest.add(part.data(), part.size());
  return digest.key();
}

int64_t bytes_in(const std::vector<std::span<std::byte>>& memory) {
  int64_t sum = 0;
  for (const std::span<std::byte> part : memory) sum += int64_t(part.size());
  return sum;
}

std::vector<fs::directory_entry> files_in(const fs::path& folder) {
  std::vector<fs::directory_entry> files;
  std::error_code problem;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, problem))
    if (entry.path().extension() == extension && entry.is_regular_file(problem)) files.push_back(entry);
  return files;
}

}  // namespace

PrefixStore::PrefixStore(fs::path folder, std::string_view identity, int64_t most_bytes)
    : folder_(std::move(folder)), identity_(Digest().add(identity.data(), identity.size()).key()), most_bytes_(most_bytes) {
  std::error_code problem;
  fs::create_directories(folder_, problem);
  if (problem) throw Error("cannot make the folder {}: {}", folder_.string(), problem.message());
  fs::permissions(folder_, fs::perms::owner_all, problem);  // what people have asked stands in it
  keep_below(most_bytes_);
}

PrefixKey PrefixStore::next_key(const PrefixKey& key, std::span<const int32_t> tokens) {
  return Digest().add(key.data(), key.size()).add(tokens.data(), tokens.size_bytes()).key();
}

fs::path PrefixStore::path_of(const PrefixKey& key) const {
  std::string name;
  for (const unsigned char byte : key) name += fmt::format("{:02x}", byte);
  return folder_ / (name + extension);
}

bool PrefixStore::has(const PrefixKey& key) const {
  std::error_code problem;
  return fs::exists(path_of(key), problem);
}

void PrefixStore::save(const PrefixKey& key, const std::vector<std::span<std::byte>>& memory, bool drafted) {
  const int64_t bytes = int64_t(sizeof(Head)) + bytes_in(memory);
  if (bytes > most_bytes_ || has(key)) return;
  keep_below(most_bytes_ - bytes);
  Head head;
  head.key = key, head.digest = digest_of(memory), head.bytes = bytes, head.drafted = drafted;
  try {
    write_atomically(path_of(key), [&](std::ostream& out) {
      out.write(reinterpret_cast<const char*>(&head), sizeof head);
      for (const std::span<std::byte> part : memory) out.write(reinterpret_cast<const char*>(part.data()), std::streamsize(part.size()));
    });
  } catch (const Error&) {
  }
}

bool PrefixStore::load(const PrefixKey& key, const std::vector<std::span<std::byte>>& memory, bool& drafted) {
  const fs::path path = path_of(key);
  std::ifstream in(path, std::ios::binary);
  if (!in) return false;
  Head head;
  const Head expected;
  in.read(reinterpret_cast<char*>(&head), sizeof head);
  const int64_t bytes = int64_t(sizeof(Head)) + bytes_in(memory);
  bool whole = in && std::memcmp(head.magic, expected.magic, sizeof head.magic) == 0 && head.key == key && head.bytes == bytes;
  for (const std::span<std::byte> part : memory)
    whole = whole && in.read(reinterpret_cast<char*>(part.data()), std::streamsize(part.size()));
  std::error_code problem;
  if (whole && digest_of(memory) == head.digest) {
    drafted = head.drafted != 0;
    fs::last_write_time(path, fs::file_time_type::clock::now(), problem);
    return true;
  }
  fs::remove(path, problem);
  return false;
}

void PrefixStore::keep_below(int64_t bytes) {
  std::vector<fs::directory_entry> files = files_in(folder_);
  std::error_code problem;
  int64_t kept = 0;  // counted each time: other models of the server may keep theirs here
  for (const fs::directory_entry& file : files) kept += int64_t(file.file_size(problem));
  if (kept <= bytes) return;
  std::ranges::sort(files, {}, [&](const fs::directory_entry& file) { return file.last_write_time(problem); });
  for (const fs::directory_entry& file : files) {
    if (kept <= bytes) return;
    const uintmax_t size = file.file_size(problem);
    if (fs::remove(file.path(), problem)) kept -= int64_t(size);
  }
}

}  // namespace hadal
