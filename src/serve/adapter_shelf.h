// The adapters that requests may ask for, by name. They come and go while the server runs; whoever has taken one keeps it.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "infer/adapter.h"

namespace hadal {

class AdapterShelf {  // of one model; from any thread
 public:
  explicit AdapterShelf(const Model& model) : model_(model), thread_([this] { run(); }) {}
  ~AdapterShelf();  // what has not been read yet stays unread

  struct Entry {
    std::shared_ptr<const Adapter> adapter;
    std::string path;
    int64_t created = 0;  // seconds since 1970
  };
  void put(const std::string& name, const std::filesystem::path& folder);  // on the calling thread. Error: as load_adapter
  // The same on the shelf's own thread, one after the other; `done` is called there with what went wrong, or nothing.
  void load(const std::string& name, const std::filesystem::path& folder, std::function<void(const std::string& problem)> done);
  bool remove(const std::string& name);  // false: there is none
  std::shared_ptr<const Adapter> find(const std::string& name) const;
  std::map<std::string, Entry> all() const;

 private:
  struct Order {
    std::string name;
    std::filesystem::path folder;
    std::function<void(const std::string&)> done;
  };
  void run();
  void retire(std::shared_ptr<const Adapter> adapter);  // under the lock

  const Model& model_;
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
  std::vector<std::shared_ptr<const Adapter>> replaced_;  // freed here when their last request has ended, not by the engine's thread
  std::condition_variable changed_;
  std::deque<Order> orders_;
  bool stop_ = false;
  std::thread thread_;
};

// `path` as a client names it, within `folder`, links followed. Error: it is not in there, or not at all.
std::filesystem::path path_within(const std::filesystem::path& folder, const std::string& path);

}  // namespace hadal
