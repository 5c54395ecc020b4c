// Pages of prompts on disk, for the next start: a file for each chunk, named by a digest of the weights and of all tokens up to its end.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

namespace hadal {

using PrefixKey = std::array<unsigned char, 32>;  // SHA-256: nobody can make two prompts of one name

class PrefixStore {
 public:
  // identity: of everything that the bytes depend on beside the tokens. most_bytes: of all in the folder, whoever's they are;
  // the files used longest ago go first.
  // Error: the folder cannot be made
  PrefixStore(std::filesystem::path folder, std::string_view identity, int64_t most_bytes);
  PrefixKey first_key() const { return identity_; }
  static PrefixKey next_key(const PrefixKey& key, std::span<const int32_t> tokens);

  bool has(const PrefixKey& key) const;
  // Written beside and renamed: a file is whole or not there. A disk that is full or fails costs the file, nothing else.
  void save(const PrefixKey& key, const std::vector<std::span<std::byte>>& memory, bool drafted);
  // False: not there, or not what was written, and then it is removed; `memory` may hold anything.
  bool load(const PrefixKey& key, const std::vector<std::span<std::byte>>& memory, bool& drafted);

 private:
  std::filesystem::path path_of(const PrefixKey& key) const;
  void keep_below(int64_t bytes);  // of all who keep theirs in this folder

  const std::filesystem::path folder_;
  const PrefixKey identity_;
  const int64_t most_bytes_;
};

}  // namespace hadal
