#include "core/pool.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <set>
#include <thread>

#include "core/error.h"

namespace hadal {
namespace {

class PoolOf : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Threads, PoolOf, testing::Values(1, 2, 3, 8));

TEST_P(PoolOf, EveryTaskRunsOnce) {
  Pool p(GetParam());
  EXPECT_EQ(p.threads(), GetParam());
  for (const int64_t tasks : {0, 1, 2, 7, 8, 15, 16, 17, 127, 10000}) {
    std::vector<int> times(size_t(tasks), 0);  // plain ints: a task run twice at once is a race that TSan reports
    p.run(tasks, [&](int64_t t) { ++times[size_t(t)]; });
    for (int64_t t = 0; t < tasks; ++t) ASSERT_EQ(times[size_t(t)], 1) << "task " << t << " of " << tasks;
  }
}

TEST_P(PoolOf, ManySmallRunsSeeTheWorkOfTheLast) {
  Pool p(GetParam());
  std::vector<int64_t> value(5, 0);
  const int runs = 3000;
  for (int r = 0; r < runs; ++r) {
    const int64_t before = value[0];
    p.run(5, [&](int64_t t) {
      if (value[size_t(t)] == r && before == r) ++value[size_t(t)];
    });
  }
  for (const int64_t v : value) EXPECT_EQ(v, runs);
}

TEST_P(PoolOf, WakesAfterSleeping) {
  Pool p(GetParam());
  for (int r = 0; r < 20; ++r) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // ten times the spin
    std::atomic<int> done{0};
    p.run(100, [&](int64_t) { ++done; });
    ASSERT_EQ(done, 100) << "run " << r;
  }
}

TEST_P(PoolOf, IndexIsUniqueAmongRunningTasks) {
  Pool p(GetParam());
  EXPECT_EQ(thread_index(), 0);
  std::vector<std::atomic<int>> busy(size_t(p.threads()));
  std::atomic<int> wrong{0};
  p.run(500, [&](int64_t) {
    const int i = thread_index();
    if (i < 0 || i >= p.threads() || busy[size_t(i)].exchange(1) != 0) ++wrong;
    std::this_thread::yield();
    busy[size_t(i)] = 0;
  });
  EXPECT_EQ(wrong, 0);
}

TEST_P(PoolOf, UnevenTasksAreTakenOver) {
  Pool p(std::max(2, GetParam()));
  // The first task holds its thread until every other task is done: only stealing its neighbours can end this.
  std::atomic<int64_t> done{0};
  const int64_t tasks = 64;
  p.run(tasks, [&](int64_t t) {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    if (t > 0) {
      ++done;
      return;
    }
    while (done < tasks - 1 && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
    EXPECT_EQ(done, tasks - 1) << "the tasks of a busy thread stayed with it";
  });
}

TEST_P(PoolOf, CallersTakeTurns) {
  Pool p(GetParam());
  int64_t sum = 0;  // changed by both callers, one at a time
  const auto call = [&] {
    for (int r = 0; r < 200; ++r) p.run(1, [&](int64_t) { ++sum; });
  };
  std::thread other(call);
  call();
  other.join();
  EXPECT_EQ(sum, 400);
}

TEST(Pool, OneThreadMeansTheCallerItself) {
  Pool p(1);
  const auto caller = std::this_thread::get_id();
  p.run(10, [&](int64_t) { EXPECT_EQ(std::this_thread::get_id(), caller); });
}

TEST(Pool, RefusesImpossibleCounts) {
  for (const int count : {-1, 0, 1025}) try {
      Pool p(count);
      FAIL() << count << " threads were accepted";
    } catch (const Error& e) {
      EXPECT_STREQ(e.what(), fmt::format("threads: expected 1 to 1024, found {}", count).c_str());
    }
}

TEST(Pool, TheProcessPoolCanBeReplaced) {
  const int original = pool().threads();
  EXPECT_EQ(original, int(usable_cores().size()));
  for (const int threads : {3, 1, original}) {
    set_pool_threads(threads);
    EXPECT_EQ(pool().threads(), threads);
    std::atomic<int> done{0};
    pool().run(17, [&](int64_t) { ++done; });
    EXPECT_EQ(done, 17);
  }
}

TEST(Pool, RespectsTheAffinityMask) {
  cpu_set_t all, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  const int core = usable_cores().back();
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(usable_cores(), std::vector<int>{core});
  Pool p(3);  // more than the mask allows: must still work
  std::atomic<int> done{0};
  p.run(50, [&](int64_t) { ++done; });
  EXPECT_EQ(done, 50);
  ASSERT_EQ(sched_setaffinity(0, sizeof all, &all), 0);
}

TEST(PoolDeathTest, ATaskMustNotRunThePool) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        Pool p(1);
        p.run(1, [&](int64_t) { p.run(1, [](int64_t) {}); });
      },
      "inside_task");
}

TEST(Pool, CountsWaitingOnlyWhenAsked) {
  Pool pool(2);
  const auto slow_second_half = [](int64_t task) {
    if (task == 1) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  };
  pool.run(2, slow_second_half);
  EXPECT_EQ(pool.waited(), 0);
  pool.count_waiting(true);
  for (int i = 0; i < 20; ++i)
    pool.run(2, slow_second_half);  // the caller takes the quick task, unless the other thread came too late for its own
  pool.count_waiting(false);
  EXPECT_GT(pool.waited(), 0);
  EXPECT_LT(pool.waited(), 20);
}

}  // namespace
}  // namespace hadal
