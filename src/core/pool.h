// The threads of the process. One phase at a time: run() splits [0, tasks) over the threads and returns when all is done.
#pragma once
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

namespace hadal {

class Pool {
 public:
  explicit Pool(int threads);  // the caller of run() is one of them; Error unless 1 <= threads <= 1024
  ~Pool();
  int threads() const;
  // Seconds that callers of run() waited for the others after their own part was done; counted between count_waiting(true) and (false).
  double waited() const;
  void count_waiting(bool on);

  // Calls f(task) once for every task in [0, tasks). Each thread starts on its own contiguous part and, when that is done, takes what
  // is left of the others'. f may run on any thread, and must not throw or call run() itself. Callers on several threads take turns.
  template <class F>
  void run(int64_t tasks, F&& f) {
    using Task = std::remove_reference_t<F>;
    run_erased(
        tasks, [](const void* self, int64_t task) { (*static_cast<Task*>(const_cast<void*>(self)))(task); }, &f);
  }

 private:
  void run_erased(int64_t tasks, void (*call)(const void*, int64_t), const void* self) noexcept;
  struct State;
  std::unique_ptr<State> state_;
};

int thread_index();                // of the calling thread within its pool, in [0, threads); 0 outside
Pool& pool();                      // the process's pool, by default one thread per usable core
void set_pool_threads(int count);  // replaces the pool; only while nothing runs on it

// One CPU number per physical core that this process may run on (affinity mask), not more than its control group's CPU quota.
std::vector<int> usable_cores();

}  // namespace hadal
