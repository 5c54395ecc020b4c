#include "serve/adapter_shelf.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#include "core/error.h"

namespace hadal {

namespace fs = std::filesystem;

AdapterShelf::~AdapterShelf() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void AdapterShelf::put(const std::string& name, const fs::path& folder) {
  Entry entry{load_adapter(model_, folder, name), folder.string(),
              std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count()};
  const std::lock_guard lock(mutex_);
  std::swap(entries_[name], entry);
  retire(std::move(entry.adapter));
}

void AdapterShelf::retire(std::shared_ptr<const Adapter> adapter) {
  if (adapter) replaced_.push_back(std::move(adapter));
  changed_.notify_one();
}

void AdapterShelf::load(const std::string& name, const fs::path& folder, std::function<void(const std::string&)> done) {
  {
    const std::lock_guard lock(mutex_);
    orders_.push_back({name, folder, std::move(done)});
  }
  changed_.notify_one();
}

bool AdapterShelf::remove(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto at = entries_.find(name);
  if (at == entries_.end()) return false;
  retire(std::move(at->second.adapter));
  entries_.erase(at);
  return true;
}

std::shared_ptr<const Adapter> AdapterShelf::find(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto at = entries_.find(name);
  return at == entries_.end() ? nullptr : at->second.adapter;
}

std::map<std::string, AdapterShelf::Entry> AdapterShelf::all() const {
  const std::lock_guard lock(mutex_);
  return entries_;
}

void AdapterShelf::run() {
  (void)::setpriority(PRIO_PROCESS, id_t(::gettid()), 10);  // replies come first
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto wanted = [this] { return stop_ || !orders_.empty(); };
    if (replaced_.empty())
      changed_.wait(lock, [&] { return wanted() || !replaced_.empty(); });
    else
      changed_.wait_for(lock, std::chrono::milliseconds(200), wanted);
    if (stop_) return;
    std::vector<std::shared_ptr<const Adapter>> unused;
    for (auto& adapter : replaced_)
      if (adapter.use_count() == 1) unused.push_back(std::move(adapter));
    std::erase(replaced_, nullptr);
    if (orders_.empty()) {
      lock.unlock();
      unused.clear();
      lock.lock();
      continue;
    }
    const Order order = std::move(orders_.front());
    orders_.pop_front();
    lock.unlock();
    std::string problem;
    try {
      put(order.name, order.folder);
    } catch (const std::exception& e) {  // no memory, too
      problem = e.what();
    }
    order.done(problem);
    lock.lock();
  }
}

fs::path path_within(const fs::path& folder, const std::string& path) {
  std::error_code wrong;
  const fs::path root = fs::canonical(folder, wrong);
  if (wrong) throw Error("cannot read {}: {}", folder.string(), wrong.message());
  const fs::path found = fs::canonical(root / path, wrong);
  if (wrong || std::ranges::mismatch(root, found).in1 != root.end())
    throw Error("\"{}\" is no folder within the one that adapters may be loaded from", path);
  return found;
}

}  // namespace hadal
