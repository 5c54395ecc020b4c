// What the server's thread, the engine's and a signal touch together; for the thread sanitizer.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "infer/expert_load.h"
#include "serve/keys.h"
#include "serve/request_log.h"

namespace hadal {
namespace {

TEST(Stress, KeysLogAndCountersFromManyThreads) {
  const std::filesystem::path folder = testing::TempDir() + "stress";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  KeyRules rules;
  rules.name = "bounded", rules.requests = 2, rules.tokens_per_minute = 1000;
  const std::string bounded = add_key(folder / "keys", rules);
  KeyRing ring(folder / "keys", "single");
  ExpertLoad load(1, 8);
  constexpr int threads = 4, visits = 500;
  int64_t dropped = 0;
  {
    RequestLog log(folder / "log", true);
    std::atomic<bool> stop{false};
    std::thread operation([&] {
      while (!stop) ring.reload(), log.reopen(), std::this_thread::yield();
    });
    std::vector<std::thread> all;
    for (int t = 0; t < threads; ++t)
      all.emplace_back([&, t] {
        for (int i = 0; i < visits; ++i) {
          Visit visit;
          visit.id = std::to_string(t) + "-" + std::to_string(i);
          visit.key = ring.find(i % 2 ? bounded : "single");
          ASSERT_TRUE(visit.key);
          double wait = 0;
          if (visit.key->begin(1, Visit::Clock::now(), wait) == KeyUse::Admission::granted) visit.admitted = 1;
          visit.reply_tokens = 1;
          visit.leave();
          log.tell(visit, 200);
          const std::vector<int32_t> experts{1, 5};
          load.count(0, experts);
        }
      });
    for (std::thread& thread : all) thread.join();
    stop = true;
    operation.join();
    dropped = log.dropped();
  }
  int64_t lines = 0;
  std::ifstream in(folder / "log");
  for (std::string line; std::getline(in, line);) ++lines;
  EXPECT_EQ(lines + dropped, threads * visits) << "each call has its line, or is counted as lost";
  EXPECT_EQ(load.rows(0, 1), threads * visits);
  EXPECT_EQ(load.rows(0, 5), threads * visits);
  EXPECT_EQ(ring.find(bounded)->quota(Visit::Clock::now()).requests_left, 2) << "every place is free again";
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace hadal
