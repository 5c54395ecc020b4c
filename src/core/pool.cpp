// Pinned workers that spin for a moment and then sleep. Waking a sleeper costs tens of microseconds, a spinning one a tenth of one;
// a token is hundreds of runs a few microseconds apart, so workers sleep only between tokens.
#include "core/pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>

#include "core/error.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto spin_time = std::chrono::microseconds(100);
constexpr int max_threads = 1024;

thread_local int current_index = 0;
thread_local bool inside_task = false;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// The mask is asked for once: a process restricted later keeps working, with pinning refused by the system and ignored here.
std::vector<int> allowed_cpus() {
  cpu_set_t set;
  std::vector<int> cpus;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return {0};
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

int quota() {  // whole CPUs granted by the control group
  std::string granted;
  double period = 0;
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  if (!(file >> granted >> period) || granted == "max" || period <= 0) return max_threads;
  return std::max(1, int(std::ceil(std::atof(granted.c_str()) / period)));
}

void pin(std::thread& thread, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  (void)::pthread_setaffinity_np(thread.native_handle(), sizeof set, &set);  // a wish: slower without, never wrong
}

}  // namespace

struct Pool::State {
  struct alignas(64) Part {  // of the task range; claimed from the front by its owner and by thieves
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  std::vector<std::thread> workers;
  std::vector<Part> parts;
  std::mutex one_run;
  bool counts_waiting = false;
  double waited = 0;
  bool crowded = false;  // more threads than cores: waiting must give the core away
  void (*call)(const void*, int64_t) = nullptr;
  const void* self = nullptr;
  alignas(64) std::atomic<int> round{0};  // grows with every run; workers wait for it to move
  std::atomic<bool> stop{false};
  // Workers that may be touching this run, plus `closed` between runs. A worker that wakes too late finds the door closed and
  // goes back, so run() waits only for those that came in.
  static constexpr int closed = 1 << 20;
  alignas(64) std::atomic<int> inside{closed};

  explicit State(int threads) : parts(size_t(threads)) {}

  void work(size_t first) {
    inside_task = true;
    for (size_t i = 0; i < parts.size(); ++i) {
      Part& part = parts[(first + i) % parts.size()];
      for (int64_t task; (task = part.next.fetch_add(1, std::memory_order_relaxed)) < part.end;) call(self, task);
    }
    inside_task = false;
  }

  void serve(int index) {
    current_index = index;
    for (int seen = 0;;) {
      wait_for_round_after(seen);
      if (stop.load(std::memory_order_relaxed)) return;
      seen = round.load(std::memory_order_acquire);
      if (inside.fetch_add(1, std::memory_order_acquire) < closed) work(size_t(index));
      inside.fetch_sub(1, std::memory_order_release);
    }
  }

  void wait_for_round_after(int seen) {
    const auto give_up = Clock::now() + spin_time;
    do {
      for (int i = 0; i < 32; ++i, relax())
        if (round.load(std::memory_order_acquire) != seen) return;
      if (crowded) std::this_thread::yield();
    } while (Clock::now() < give_up);
    round.wait(seen, std::memory_order_acquire);
  }

  void begin_round() {
    round.fetch_add(1);
    round.notify_all();  // no system call while nobody sleeps
  }
};

Pool::Pool(int threads) {
  if (threads < 1 || threads > max_threads) throw Error("threads: expected 1 to {}, found {}", max_threads, threads);
  state_ = std::make_unique<State>(threads);
  const std::vector<int> cores = usable_cores();
  state_->crowded = size_t(threads) > cores.size();
  for (int i = 1; i < threads; ++i) {
    state_->workers.emplace_back([state = state_.get(), i] { state->serve(i); });
    if (!state_->crowded) pin(state_->workers.back(), cores[size_t(i)]);
  }
}

Pool::~Pool() {
  state_->stop = true;
  state_->begin_round();
  for (std::thread& worker : state_->workers) worker.join();
}

int Pool::threads() const { return int(state_->parts.size()); }

void Pool::run_erased(int64_t tasks, void (*call)(const void*, int64_t), const void* self) noexcept {
  CHECK(!inside_task);
  State& s = *state_;
  const std::lock_guard only_one(s.one_run);
  s.call = call;
  s.self = self;
  const int64_t threads = int64_t(s.parts.size());
  for (int64_t i = 0; i < threads; ++i) {
    s.parts[size_t(i)].next.store(tasks * i / threads, std::memory_order_relaxed);
    s.parts[size_t(i)].end = tasks * (i + 1) / threads;
  }
  if (tasks <= 1 || threads == 1) return s.work(0);

  s.inside.fetch_sub(State::closed, std::memory_order_release);
  s.begin_round();
  s.work(0);
  s.inside.fetch_add(State::closed, std::memory_order_relaxed);
  const Clock::time_point done = s.counts_waiting ? Clock::now() : Clock::time_point();
  // All tasks are claimed and the door is closed: what is left is in the hands of those inside.
  for (int waited = 0; s.inside.load(std::memory_order_acquire) != State::closed; ++waited) {
    if (s.crowded || waited > 4096) std::this_thread::yield();
    relax();
  }
  if (s.counts_waiting) s.waited += std::chrono::duration<double>(Clock::now() - done).count();
}

double Pool::waited() const {
  const std::lock_guard lock(state_->one_run);
  return state_->waited;
}

void Pool::count_waiting(bool on) {
  const std::lock_guard lock(state_->one_run);
  state_->counts_waiting = on;
}

int thread_index() { return current_index; }

std::vector<int> usable_cores() {
  const std::vector<int> cpus = allowed_cpus();
  std::vector<int> cores;
  for (const int cpu : cpus) {
    // The first CPU of a core stands for it, or the first of its siblings that we may use.
    std::ifstream file(fmt::format("/sys/devices/system/cpu/cpu{}/topology/core_cpus_list", cpu));
    int first = cpu;
    const bool sibling_counted = (file >> first) && first != cpu && std::find(cores.begin(), cores.end(), first) != cores.end();
    if (!sibling_counted) cores.push_back(cpu);
  }
  if (cores.empty()) cores = {0};
  cores.resize(std::min(cores.size(), size_t(quota())));
  return cores;
}

namespace {
// Never destroyed: at exit another thread may still be inside a run.
std::atomic<Pool*> process_pool{nullptr};
std::mutex making;
}  // namespace

Pool& pool() {
  if (Pool* made = process_pool.load(std::memory_order_acquire)) return *made;
  const std::lock_guard lock(making);
  if (!process_pool.load()) process_pool = new Pool(int(usable_cores().size()));
  return *process_pool.load();
}

void set_pool_threads(int count) {
  const std::lock_guard lock(making);
  auto replacement = std::make_unique<Pool>(count);
  delete process_pool.exchange(replacement.release());
}

}  // namespace hadal
