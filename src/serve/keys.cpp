#include "serve/keys.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <ctime>
#include <sstream>

#include "core/error.h"
#include "core/files.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view prefix = "hadal-";  // of a secret: hadal-ID-RANDOM
constexpr std::string_view opening = "# API keys of hadal serve, one a line; only hashes are kept. `hadal keys --help`\n";

std::string hex(const unsigned char* bytes, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

std::string random_hex(size_t bytes) {
  std::vector<unsigned char> drawn(bytes);
  if (RAND_bytes(drawn.data(), int(bytes)) != 1) throw Error("cannot make a key: the system has no random bytes");
  return hex(drawn.data(), bytes);
}

std::string hash_of(const std::string& salt, std::string_view secret) {
  const std::string text = salt + std::string(secret);
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned count = 0;
  CHECK(EVP_Digest(text.data(), text.size(), bytes, &count, EVP_sha256(), nullptr) == 1);
  return hex(bytes, count);
}

bool same(const std::string& a, const std::string& b) { return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

bool is_hex(const std::string& text, size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

void check_name(const std::string& name) {
  const auto fits = [](char c) { return std::isalnum(uint8_t(c)) || std::strchr("._@-", c); };
  if (name.empty() || name.size() > 64 || !std::all_of(name.begin(), name.end(), fits))
    throw Error("name: expected 1 to 64 letters, digits and ._@-, found '{}'", name);
}

int64_t parse_count(const std::string& field, const std::string& text, int64_t least, int64_t most) {
  int64_t value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size() || value < least || value > most)
    throw Error("{}: expected a number from {} to {}, found '{}'", field, least, most, text);
  return value;
}

std::vector<std::string> split(const std::string& text, char between) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, between);)
    if (!part.empty()) parts.push_back(part);
  return parts;
}

constexpr int64_t most_of_a_limit = 1'000'000'000'000;

void set_field(Key& key, const std::string& field, const std::string& value) {
  KeyRules& rules = key.rules;
  if (field == "name") {
    check_name(value);
    rules.name = value;
  } else if (field == "id" || field == "salt" || field == "sha256") {
    const size_t digits = field == "id" ? 8 : field == "salt" ? 32 : 64;
    if (!is_hex(value, digits)) throw Error("{}: expected {} hexadecimal digits, found '{}'", field, digits, value);
    (field == "id" ? key.id : field == "salt" ? key.salt : key.hash) = value;
  } else if (field == "requests") {
    rules.requests = parse_count(field, value, 1, most_of_a_limit);
  } else if (field == "tokens-per-minute") {
    rules.tokens_per_minute = parse_count(field, value, 1, most_of_a_limit);
  } else if (field == "priority") {
    rules.priority = parse_count(field, value, -highest_priority, highest_priority);
  } else if (field == "models") {
    rules.models = split(value, ',');
  } else if (field == "admin") {
    if (value != "yes" && value != "no") throw Error("admin: expected yes or no, found '{}'", value);
    rules.admin = value == "yes";
  } else if (field == "expires") {
    rules.expires = parse_time(value);
  } else {
    throw Error("unknown field '{}'", field);
  }
}

Key parse_key(const std::string& line) {
  Key key;
  for (const std::string& part : split(line, ' ')) {
    const size_t equals = part.find('=');
    if (equals == std::string::npos) throw Error("expected FIELD=VALUE, found '{}'", part);
    set_field(key, part.substr(0, equals), part.substr(equals + 1));
  }
  if (key.rules.name.empty() || key.id.empty() || key.salt.empty() || key.hash.empty())
    throw Error("expected at least name, id, salt and sha256");
  return key;
}

std::string line_of(const Key& key) {
  const KeyRules& rules = key.rules;
  std::string line = fmt::format("name={} id={} salt={} sha256={}", rules.name, key.id, key.salt, key.hash);
  if (rules.requests > 0) line += fmt::format(" requests={}", rules.requests);
  if (rules.tokens_per_minute > 0) line += fmt::format(" tokens-per-minute={}", rules.tokens_per_minute);
  if (rules.priority != 0) line += fmt::format(" priority={}", rules.priority);
  if (!rules.models.empty()) line += fmt::format(" models={}", fmt::join(rules.models, ","));
  if (rules.admin) line += " admin=yes";
  if (rules.expires > 0) line += " expires=" + write_time(rules.expires);
  return line + "\n";
}

bool holds_a_key(const std::string& line) {
  const size_t at = line.find_first_not_of(" \t\r");
  return at != std::string::npos && line[at] != '#';
}

std::vector<Key> parse_keys(const std::string& text, const std::string& where) {
  std::vector<Key> keys;
  std::istringstream in(text);
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (!holds_a_key(line)) continue;
    try {
      keys.push_back(parse_key(line));
      for (size_t i = 0; i + 1 < keys.size(); ++i)
        if (keys[i].rules.name == keys.back().rules.name || keys[i].id == keys.back().id)
          throw Error("the name or id of an earlier line is used again");
    } catch (const Error& e) {
      throw Error("{}:{}: {}", where, number, e.what());
    }
  }
  return keys;
}

std::string text_of(const fs::path& file) {
  constexpr size_t longest = size_t(16) << 20;
  struct stat status;
  const bool there = ::stat(file.c_str(), &status) == 0;
  if (there && (status.st_mode & 022) != 0)
    throw Error("{}: others may write to it, so anyone could add a key: expected mode 0600", file.string());
  return there && status.st_size == 0 ? std::string() : read_text(file, longest);
}

// What is locked while the file is changed: the file itself is replaced.
fs::path folder_of(const fs::path& file) { return file.has_parent_path() ? file.parent_path() : "."; }

void write_keys(const fs::path& file, const std::string& text) {
  const mode_t before = ::umask(0077);
  try {
    write_atomically(file, [&](std::ostream& out) { out << text; });
  } catch (...) {
    ::umask(before);
    throw;
  }
  ::umask(before);
}

int64_t unix_now() { return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace

int64_t parse_time(const std::string& text) {
  std::tm time = {};
  for (const char* format : {"%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"}) {
    time = {};
    const char* end = ::strptime(text.c_str(), format, &time);
    if (end && *end == '\0') {
      const int64_t seconds = ::timegm(&time);
      if (seconds > 0) return seconds;
    }
  }
  throw Error("expected a time like 2027-01-31 or 2027-01-31T23:59:59Z, found '{}'", text);
}

std::string write_time(int64_t seconds) {
  const std::time_t time = std::time_t(seconds);
  std::tm parts = {};
  ::gmtime_r(&time, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour,
                     parts.tm_min, parts.tm_sec);
}

std::vector<Key> read_keys(const fs::path& file) { return parse_keys(text_of(file), file.string()); }

std::string add_key(const fs::path& file, const KeyRules& rules) {
  check_name(rules.name);
  for (const std::string& model : rules.models)
    if (model.empty() || model.find_first_of(" ,\t\r\n") != std::string::npos)
      throw Error("models: expected names without spaces and commas, found '{}'", model);
  const FolderLock lock(folder_of(file));
  std::string text = fs::exists(file) ? text_of(file) : std::string(opening);
  for (const Key& key : parse_keys(text, file.string()))
    if (key.rules.name == rules.name) throw Error("{} has a key named '{}' already", file.string(), rules.name);
  Key key{rules, random_hex(4), random_hex(16), ""};
  const std::string secret = fmt::format("{}{}-{}", prefix, key.id, random_hex(32));
  key.hash = hash_of(key.salt, secret);
  if (!text.empty() && text.back() != '\n') text += '\n';
  write_keys(file, text + line_of(key));
  return secret;
}

void remove_key(const fs::path& file, const std::string& name) {
  const FolderLock lock(folder_of(file));
  std::istringstream in(text_of(file));
  std::string kept;
  bool found = false;
  for (std::string line; std::getline(in, line);) {
    const bool this_one = holds_a_key(line) && parse_key(line).rules.name == name;
    found |= this_one;
    if (!this_one) kept += line + "\n";
  }
  if (!found) throw Error("{} has no key named '{}'", file.string(), name);
  write_keys(file, kept);
}

KeyRules KeyUse::rules() const {
  const std::lock_guard lock(mutex_);
  return rules_;
}

void KeyUse::change(KeyRules rules) {
  const std::lock_guard lock(mutex_);
  rules_ = std::move(rules);
}

double KeyUse::level(Time now) const {
  const double back = double(rules_.tokens_per_minute) / 60 * std::chrono::duration<double>(now - at_).count();
  return double(rules_.tokens_per_minute) - std::max(0.0, taken_ - back);
}

KeyUse::Admission KeyUse::begin(int64_t requests, Time now, double& wait) {
  const std::lock_guard lock(mutex_);
  wait = 0;
  if (rules_.requests > 0 && running_ + requests > rules_.requests) return Admission::too_many;
  if (rules_.tokens_per_minute > 0 && level(now) < 1) {
    wait = (1 - level(now)) * 60 / double(rules_.tokens_per_minute);
    return Admission::too_fast;
  }
  running_ += requests;
  return Admission::granted;
}

void KeyUse::end(int64_t requests) {
  const std::lock_guard lock(mutex_);
  running_ -= requests;
}

void KeyUse::charge(int64_t tokens, Time now) {
  const std::lock_guard lock(mutex_);
  if (rules_.tokens_per_minute == 0) return;
  taken_ = double(rules_.tokens_per_minute) - level(now) + double(tokens);
  at_ = now;
}

Quota KeyUse::quota(Time now) const {
  const std::lock_guard lock(mutex_);
  Quota quota;
  quota.requests = rules_.requests;
  quota.requests_left = std::max(int64_t(0), rules_.requests - running_);
  quota.tokens = rules_.tokens_per_minute;
  if (quota.tokens > 0) {
    quota.tokens_left = std::max(int64_t(0), int64_t(level(now)));
    quota.tokens_reset = (double(quota.tokens) - level(now)) * 60 / double(quota.tokens);
  }
  return quota;
}

KeyRing::KeyRing(fs::path file, const std::string& single) : file_(std::move(file)) {
  if (!single.empty()) {
    KeyRules all;
    all.name = "HADAL_API_KEY";
    all.priority = highest_priority;
    all.admin = true;
    single_ = std::make_shared<KeyUse>(all);
    single_salt_ = random_hex(16);
    single_hash_ = hash_of(single_salt_, single);
  }
  reload();
}

size_t KeyRing::reload() {
  if (file_.empty()) return 0;
  const std::vector<Key> keys = read_keys(file_);
  const std::lock_guard lock(mutex_);
  auto fresh = std::make_shared<Entries>();
  for (const Key& key : keys) {
    const auto old = entries_->find(key.id);
    const std::shared_ptr<KeyUse> use = old == entries_->end() ? std::make_shared<KeyUse>(key.rules) : old->second.use;
    use->change(key.rules);
    fresh->emplace(key.id, Entry{key, use});
  }
  entries_ = std::move(fresh);
  return keys.size();
}

std::shared_ptr<KeyUse> KeyRing::find(std::string_view secret) const {
  if (single_ && same(hash_of(single_salt_, secret), single_hash_)) return single_;
  std::shared_ptr<const Entries> entries;
  {
    const std::lock_guard lock(mutex_);
    entries = entries_;
  }
  if (!secret.starts_with(prefix)) return nullptr;
  const auto at = entries->find(secret.substr(prefix.size(), 8));
  if (at == entries->end() || !same(hash_of(at->second.key.salt, secret), at->second.key.hash)) return nullptr;
  const int64_t expires = at->second.key.rules.expires;
  return expires > 0 && unix_now() >= expires ? nullptr : at->second.use;
}

}  // namespace hadal
