#include "model/hub.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/files.h"
#include "model/download.h"
#include "model/http_client.h"
#include "model/source.h"

namespace hadal {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* manifest_name = ".hadal-pull.json";  // what lies in the folder, written when all of it does
constexpr size_t listing_limit = size_t(64) << 20;

struct Repository {
  std::string name, file;  // file: the one .gguf that was asked for; empty: the whole model
};

bool is_safe(const std::string& path) {  // relative, and stays inside its folder
  if (path.empty() || path.size() > 500 || path.front() == '/' || path.back() == '/') return false;
  if (std::any_of(path.begin(), path.end(), [](unsigned char c) { return c < ' ' || c == 0x7f || c == '\\'; })) return false;
  const fs::path parts(path);
  return std::none_of(parts.begin(), parts.end(), [](const fs::path& part) { return part == "." || part == ".." || part.empty(); });
}

Repository repository_of(const std::string& reference) {
  std::string name = reference;
  for (const KnownModel& known : known_models())
    if (known.name == reference) {
      if (known.repository.empty()) throw Error("the model {} is not on a hub: `script/run` fetches it", reference);
      name = known.repository;
    }
  const size_t slash = name.find('/'), second = slash == std::string::npos ? slash : name.find('/', slash + 1);
  Repository repository{name.substr(0, second), second == std::string::npos ? "" : name.substr(second + 1)};
  const auto allowed = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.' || c == '/'; };
  const bool named = slash != std::string::npos && is_safe(name) && std::all_of(repository.name.begin(), repository.name.end(), allowed);
  if (!named || (!repository.file.empty() && !repository.file.ends_with(".gguf")))
    throw Error("\"{}\": expected owner/name, owner/name/file.gguf or a name that `hadal models` lists", reference);
  return repository;
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string escaped(const std::string& text) {  // for a path: everything but what RFC 3986 calls unreserved, and the slash
  std::string out;
  for (const unsigned char c : text)
    out +=
        std::isalnum(c) || c == '-' || c == '_' || c == '.' || c == '~' || c == '/' ? std::string(1, char(c)) : fmt::format("%{:02X}", c);
  return out;
}

std::string one_part(const std::string& text) {  // a revision may hold slashes
  std::string out = escaped(text);
  for (size_t at = 0; (at = out.find('/', at)) != std::string::npos; at += 3) out.replace(at, 1, "%2F");
  return out;
}

// What the hub says about the repository.
struct Listing {
  std::string commit;
  std::map<std::string, RemoteFile> files;
};

std::string text_at(const Json& json, const char* key) {
  const auto at = json.is_object() ? json.find(key) : json.end();
  return json.is_object() && at != json.end() && at->is_string() ? at->get<std::string>() : "";
}

RemoteFile remote_file(const Json& entry, const std::string& where) {
  RemoteFile file;
  file.name = text_at(entry, "rfilename");
  if (!is_safe(file.name)) throw Error("{}: expected file names that stay in their folder, found \"{}\"", where, file.name.substr(0, 100));
  const auto size = entry.find("size");
  if (size != entry.end() && size->is_number_unsigned() && size->get<uint64_t>() <= uint64_t(1) << 50) file.size = size->get<int64_t>();
  const auto lfs = entry.find("lfs");
  if (lfs != entry.end() && lfs->is_object()) {
    file.digest = {Digest::Kind::sha256, text_at(*lfs, "sha256")};
  } else if (const std::string blob = text_at(entry, "blobId"); !blob.empty()) {
    file.digest = {Digest::Kind::git_blob, blob};
  }
  return file;
}

Listing parse_listing(const std::string& text, const std::string& where) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::exception& e) {
    throw Error("{}: expected the hub's JSON, found something else ({})", where, e.what());
  }
  const auto siblings = json.is_object() ? json.find("siblings") : json.end();
  if (!json.is_object() || siblings == json.end() || !siblings->is_array())
    throw Error("{}: expected a list of files under \"siblings\"", where);
  Listing listing;
  listing.commit = text_at(json, "sha");
  for (const Json& entry : *siblings) {
    if (!entry.is_object()) throw Error("{}: expected files as objects under \"siblings\"", where);
    const RemoteFile file = remote_file(entry, where);
    listing.files[file.name] = file;
  }
  return listing;
}

// Root files only: what lies in folders of a repository belongs to other formats.
std::vector<RemoteFile> matching(const Listing& listing, const std::function<bool(const std::string&)>& wanted) {
  std::vector<RemoteFile> files;
  for (const auto& [name, file] : listing.files)
    if (name.find('/') == std::string::npos && wanted(name)) files.push_back(file);
  return files;
}

std::vector<RemoteFile> small_files(const Listing& listing) {
  return matching(listing, [](const std::string& name) {
    return name == "config.json" || name == "generation_config.json" || name == "chat_template.jinja" ||
           (name.starts_with("tokenizer") && name.ends_with(".json"));
  });
}

struct Weights {
  std::string index;  // its name, whether the repository has it or not
  std::vector<RemoteFile> files;
};

Weights weights_of(const Listing& listing, const std::string& repository) {
  const auto files_like = [&](const char* start, const char* end) {
    return matching(listing, [&](const std::string& name) { return name.starts_with(start) && name.ends_with(end); });
  };
  if (auto files = files_like("", ".safetensors"); !files.empty()) return {"model.safetensors.index.json", files};
  if (auto files = files_like("pytorch_model", ".bin"); !files.empty()) return {"pytorch_model.bin.index.json", files};
  std::vector<std::string> ggufs;
  for (const auto& [name, file] : listing.files)
    if (name.ends_with(".gguf")) ggufs.push_back(name);
  if (ggufs.empty()) throw Error("{} holds no weights: expected .safetensors, pytorch_model*.bin or .gguf files", repository);
  throw Error("{} holds its weights as GGUF: name one file, for example `hadal pull {}/{}` (there are {})", repository, repository,
              ggufs.front(), fmt::join(ggufs, ", "));
}

// Keeps the shards that the index names. An index that names files which are not there is a leftover: false, all files stay.
bool keep_indexed(Weights& weights, const fs::path& index) {
  std::set<std::string> named;
  try {
    const Json json = Json::parse(read_text(index, size_t(256) << 20));
    for (const Json& shard : json.at("weight_map")) named.insert(shard.get<std::string>());
  } catch (const Json::exception& e) {
    throw Error("{}: expected an index of tensors: {}", index.string(), e.what());
  }
  std::vector<RemoteFile> kept;
  for (const RemoteFile& file : weights.files)
    if (named.contains(file.name)) kept.push_back(file);
  if (kept.size() != named.size()) return false;
  weights.files = kept;
  return true;
}

class Pull {
 public:
  Pull(const Repository& repository, const PullOptions& options) : repository_(repository), options_(options) {
    std::string endpoint = !options.endpoint.empty() ? options.endpoint : variable("HF_ENDPOINT");
    if (endpoint.empty()) endpoint = "https://huggingface.co";
    while (endpoint.ends_with('/')) endpoint.pop_back();
    parse_url(endpoint);  // Error before anything else happens
    endpoint_ = endpoint;
    token_ = !options.token.empty() ? options.token : variable("HF_TOKEN");
    folder_ = cache_folder() / repository.name;
  }

  fs::path run() {
    const Listing listing = list();
    // From here on one commit is meant, whatever happens to the branch meanwhile.
    revision_ = listing.commit.empty() ? options_.revision : listing.commit;
    std::error_code failure;
    fs::create_directories(folder_, failure);
    if (failure) throw Error("cannot create the folder {}: {}", folder_.string(), failure.message());
    known_ = read_manifest();
    if (!repository_.file.empty()) {
      const auto at = listing.files.find(repository_.file);
      if (at == listing.files.end()) throw Error("{} holds no file {}", repository_.name, repository_.file);
      fetch({at->second});
      return folder_ / repository_.file;
    }
    if (!listing.files.contains("config.json"))
      weights_of(listing, repository_.name), throw Error("{} holds no config.json", repository_.name);
    Weights weights = weights_of(listing, repository_.name);
    std::vector<RemoteFile> files = small_files(listing);
    if (const auto index = listing.files.find(weights.index); index != listing.files.end()) {
      fetch({index->second});
      if (keep_indexed(weights, folder_ / weights.index)) {
        files.push_back(index->second);
      } else {
        fs::remove(folder_ / weights.index);
      }
    }
    files.insert(files.end(), weights.files.begin(), weights.files.end());
    fetch(files);
    write_manifest(files, listing.commit);
    return folder_;
  }

 private:
  Listing list() {
    const std::string where =
        fmt::format("{}/api/models/{}/revision/{}?blobs=true", endpoint_, escaped(repository_.name), one_part(options_.revision));
    HttpRequest request;
    request.url = parse_url(where);
    request.token = token_;
    request.patience = options_.patience;
    std::string text;
    const HttpHead head = with_retries(options_.attempts, options_.first_pause, [&] {
      text.clear();
      return http_get(
          request, [](const HttpHead&) { return true; },
          [&](std::string_view piece) {
            if (text.size() + piece.size() > listing_limit) throw Error("{}: expected a list of files, found more than 64 MB", where);
            text += piece;
          });
    });
    if (head.status != 200) refuse(head, fmt::format("{} (revision {})", repository_.name, options_.revision));
    return parse_listing(text, where);
  }

  [[noreturn]] void refuse(const HttpHead& head, const std::string& what) const {
    const std::string words = head.message.empty() ? "" : " (\"" + head.message + "\")";
    const char* advice = head.status == 401   ? "a token in HF_TOKEN is needed, or the name is wrong"
                         : head.status == 403 ? "this token may not read it: ask for access on the repository's page"
                         : head.status == 404 ? "there is no such repository, revision or file: check the name"
                         : head.status == 429 ? "too many requests: try again later"
                                              : "the hub did not expect this: try again later, or check --endpoint";
    throw Error("{} answered {} for {}{}: {}", endpoint_, head.status, what, words, advice);
  }

  void fetch(const std::vector<RemoteFile>& files) {
    int64_t size = 0, done = 0, missing = 0;
    for (const RemoteFile& file : files) {
      size += std::max<int64_t>(file.size, 0);
      if (!fs::exists(folder_ / file.name)) missing += std::max<int64_t>(file.size, 0) - part_size(folder_ / file.name);
    }
    std::error_code unknown;
    const auto space = fs::space(folder_, unknown);
    if (!unknown && missing > 0 && space.available < uint64_t(missing))
      throw Error("no room for {}: {} needs {} bytes more, and {} has {}", repository_.name, missing, missing, folder_.string(),
                  space.available);
    for (const RemoteFile& file : files) {
      const auto report = [&](int64_t now) {
        if (options_.on_progress) options_.on_progress({file.name, now, file.size, done + now, size});
      };
      Download download{folder_ / file.name, file, options_.attempts, options_.first_pause, report};
      download.request.url =
          parse_url(fmt::format("{}/{}/resolve/{}/{}", endpoint_, escaped(repository_.name), one_part(revision_), escaped(file.name)));
      download.request.token = token_;
      download.request.patience = options_.patience;
      download.trusted = known_.contains(file.name) && known_[file.name] == file.digest.hex && !file.digest.hex.empty();
      const HttpHead head = fetch_file(download);
      if (head.status >= 300) refuse(head, repository_.name + "/" + file.name);
      done += std::max<int64_t>(file.size, 0);
    }
  }

  std::map<std::string, std::string> read_manifest() const {
    std::map<std::string, std::string> files;
    if (!fs::exists(folder_ / manifest_name)) return files;
    const Json json = Json::parse(read_text(folder_ / manifest_name, listing_limit), nullptr, false);
    if (const auto at = json.is_object() ? json.find("files") : json.end(); json.is_object() && at != json.end() && at->is_array())
      for (const Json& file : *at) files[text_at(file, "name")] = text_at(file, "digest");
    return files;
  }

  void write_manifest(const std::vector<RemoteFile>& files, const std::string& commit) const {
    Json list = Json::array();
    for (const RemoteFile& file : files) list.push_back({{"name", file.name}, {"size", file.size}, {"digest", file.digest.hex}});
    const Json manifest = {
        {"repository", repository_.name}, {"endpoint", endpoint_}, {"revision", options_.revision}, {"commit", commit}, {"files", list}};
    write_atomically(folder_ / manifest_name,
                     [&](std::ostream& out) { out << manifest.dump(2, ' ', true, Json::error_handler_t::replace) << '\n'; });
  }

  const Repository repository_;
  const PullOptions& options_;
  std::string endpoint_, token_, revision_;
  fs::path folder_;
  std::map<std::string, std::string> known_;  // digests of files that an earlier pull verified
};

}  // namespace

fs::path pull(const std::string& reference, const PullOptions& options) { return Pull(repository_of(reference), options).run(); }

}  // namespace hadal
