// The threads of the process. One phase at a time: run() splits [0, tasks) over the threads and returns when all is done.
#pragma once
#include <cstdint>
#include <memory>
#include <type_traits>

namespace hadal {

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  int threads() const;

  // Calls f(task) once for every task in [0, tasks), tasks being handed out in order from both ends of a static split:
  // f may run on any thread, and must not throw or call run() itself.
  template <class F>
  void run(int64_t tasks, F&& f) {
    run_erased(tasks, [](void* self, int64_t task) { (*static_cast<std::remove_reference_t<F>*>(self))(task); }, &f);
  }

 private:
  void run_erased(int64_t tasks, void (*call)(void*, int64_t), void* self);
  struct State;
  std::unique_ptr<State> state_;
};

int thread_index();  // of the calling thread within its pool, in [0, threads); 0 outside
Pool& pool();                    // the process's pool, by default one thread per core this process may use
void set_pool_threads(int count);  // replaces the pool; only while nothing runs on it

}  // namespace hadal
