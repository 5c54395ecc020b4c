// Who may ask: API keys. Their file holds salted hashes of random 256-bit secrets, one key a line, and what each may have.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

struct KeyRules {
  std::string name;                 // for people and logs: letters, digits and ._@-
  int64_t requests = 0;             // at a time; 0: no limit
  int64_t tokens_per_minute = 0;    // of prompts and replies; 0: no limit
  int64_t priority = 0;             // the highest that its requests may ask for
  std::vector<std::string> models;  // that it may use; empty: all
  bool admin = false;               // may load and remove adapters and the like
  int64_t expires = 0;              // seconds since 1970; 0: never
};
constexpr int64_t highest_priority = 100;

struct Key {
  KeyRules rules;
  std::string id, salt, hash;  // hexadecimal; the id is the part of the secret that may be seen
};

std::vector<Key> read_keys(const std::filesystem::path& file);                  // Error: names the line and what is wrong with it
std::string add_key(const std::filesystem::path& file, const KeyRules& rules);  // the secret, kept nowhere. Error: the name is taken
void remove_key(const std::filesystem::path& file, const std::string& name);    // Error: there is none
int64_t parse_time(const std::string& text);                                    // 2027-01-31 or 2027-01-31T23:59:59Z, as seconds since 1970
std::string write_time(int64_t seconds);                                        // the second form

struct Quota {  // what a key may still have; limits of 0: none
  int64_t requests = 0, requests_left = 0, tokens = 0, tokens_left = 0;
  double tokens_reset = 0;  // seconds until all tokens of a minute are there again
};

class KeyUse {  // one key while the server runs; from any thread
 public:
  using Time = std::chrono::steady_clock::time_point;
  explicit KeyUse(KeyRules rules) : rules_(std::move(rules)) {}
  KeyRules rules() const;
  void change(KeyRules rules);
  enum class Admission { granted, too_many, too_fast };
  // too_fast: seconds until it may try again are in `wait`. What is granted is given back with end().
  Admission begin(int64_t requests, Time now, double& wait);
  void end(int64_t requests);
  void charge(int64_t tokens, Time now);  // known only afterwards: the next requests wait for what was taken too much
  Quota quota(Time now) const;

 private:
  double level(Time now) const;  // tokens that are there

  mutable std::mutex mutex_;
  KeyRules rules_;
  int64_t running_ = 0;
  double taken_ = 0;  // tokens at `at_`, of which rules_.tokens_per_minute come back in a minute
  Time at_ = {};
};

class KeyRing {
 public:
  // file empty: none; single empty: none, else a further key without limits. Error: as read_keys
  KeyRing(std::filesystem::path file, const std::string& single);
  bool asks() const { return single_ || !file_.empty(); }
  std::shared_ptr<KeyUse> find(std::string_view secret) const;  // nullptr: unknown or expired
  size_t reload();                                              // keys. Error: the file is wrong, what was in force stays so

 private:
  struct Entry {
    Key key;
    std::shared_ptr<KeyUse> use;
  };
  using Entries = std::map<std::string, Entry, std::less<>>;  // by id
  const std::filesystem::path file_;
  std::shared_ptr<KeyUse> single_;
  std::string single_salt_, single_hash_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Entries> entries_ = std::make_shared<Entries>();
};

}  // namespace hadal
