// API keys: their file, who is let in, and what a key may have.
#include "serve/keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <thread>

#include "core/error.h"
#include "core/files.h"

namespace hadal {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

struct Keys : testing::Test {
  std::filesystem::path folder = testing::TempDir() + "keys_" + testing::UnitTest::GetInstance()->current_test_info()->name();
  std::filesystem::path file = folder / "keys.txt";
  Keys() {
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
  }
  ~Keys() override { std::filesystem::remove_all(folder); }
  void write(const std::string& text) {
    std::ofstream(file) << text;
    ::chmod(file.c_str(), 0600);
  }
  std::string add(const std::string& name, KeyRules rules = {}) {
    rules.name = name;
    return add_key(file, rules);
  }
  std::string refusal(const std::string& text) {
    write(text);
    try {
      read_keys(file);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }
};

TEST_F(Keys, TheFileHoldsNoSecretAndNobodyElseReadsIt) {
  const std::string alice = add("alice"), bob = add("bob");
  EXPECT_EQ(alice.size(), std::string("hadal-12345678-").size() + 64);
  EXPECT_NE(alice, bob);
  const std::string text = read_text(file);
  EXPECT_THAT(text, testing::Not(HasSubstr(alice.substr(15))));
  struct stat status;
  ASSERT_EQ(::stat(file.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  const KeyRing ring(file, "");
  EXPECT_EQ(ring.find(alice)->rules().name, "alice");
  EXPECT_EQ(ring.find(bob)->rules().name, "bob");
}

TEST_F(Keys, WhatIsNearlyAKeyIsNone) {
  const std::string secret = add("alice");
  const KeyRing ring(file, "");
  ASSERT_TRUE(ring.find(secret));
  for (size_t i = 0; i < secret.size(); ++i) {
    std::string wrong = secret;
    wrong[i] = wrong[i] == '0' ? '1' : '0';
    EXPECT_FALSE(ring.find(wrong)) << i;
    EXPECT_FALSE(ring.find(secret.substr(0, i))) << i;
  }
  EXPECT_FALSE(ring.find(secret + "0"));
  EXPECT_FALSE(ring.find(secret + std::string(1, '\0')));
}

TEST_F(Keys, EditingKeepsCommentsAndWhatOthersMay) {
  write("# ours\n\n");
  KeyRules rules;
  rules.requests = 3, rules.tokens_per_minute = 600, rules.priority = -7, rules.models = {"a", "b"}, rules.admin = true;
  rules.expires = parse_time("2999-12-31");
  add("first", rules);
  add("second");
  remove_key(file, "second");
  add("third");
  EXPECT_THAT(read_text(file), testing::StartsWith("# ours\n\n"));
  const std::vector<Key> keys = read_keys(file);
  ASSERT_EQ(keys.size(), 2u);
  const KeyRules& read = keys[0].rules;
  EXPECT_EQ(std::tie(read.name, read.requests, read.tokens_per_minute, read.priority, read.models, read.admin, read.expires),
            std::make_tuple("first", 3, 600, -7, rules.models, true, rules.expires));
  EXPECT_EQ(keys[1].rules.name, "third");
  EXPECT_THROW(add("third"), Error);
  EXPECT_THROW(remove_key(file, "second"), Error);
}

TEST_F(Keys, TwoWhoAddAtOnceLoseNothing) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 8; ++i) add("key" + std::to_string(t) + "-" + std::to_string(i));
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(read_keys(file).size(), 32u);
}

TEST_F(Keys, WhatIsWrongInTheFileIsNamed) {
  add("good");
  const std::string good = read_text(file);
  EXPECT_THAT(refusal(good + "nonsense\n"), HasSubstr("keys.txt:3: expected FIELD=VALUE, found 'nonsense'"));
  EXPECT_THAT(refusal(good + good), HasSubstr(":4: the name or id of an earlier line"));
  EXPECT_THAT(refusal("name=a id=12345678 salt=1 sha256=2\n"), HasSubstr(":1: salt: expected 32 hexadecimal digits, found '1'"));
  EXPECT_THAT(refusal("name=a\n"), HasSubstr("expected at least name, id, salt and sha256"));
  EXPECT_THAT(refusal("name=a b\n"), HasSubstr("found 'b'"));
  EXPECT_THAT(refusal("name=\xff\n"), HasSubstr("name: expected 1 to 64 letters"));
  EXPECT_THAT(refusal("requests=0\n"), HasSubstr("requests: expected a number from 1"));
  EXPECT_THAT(refusal("priority=101\n"), HasSubstr("priority: expected a number from -100 to 100"));
  EXPECT_THAT(refusal("expires=tomorrow\n"), HasSubstr("expected a time like 2027-01-31"));
  EXPECT_THAT(refusal("colour=blue\n"), HasSubstr("unknown field 'colour'"));
  write(good);
  ::chmod(file.c_str(), 0622);
  EXPECT_THROW(read_keys(file), Error);
  EXPECT_THROW(read_keys(folder / "none"), Error);
}

TEST_F(Keys, TheOneKeyStandsBesideTheFile) {
  const std::string secret = add("alice");
  const KeyRing both(file, "sesame"), one({}, "sesame"), none({}, "");
  EXPECT_TRUE(both.find("sesame") && both.find(secret) && one.find("sesame"));
  EXPECT_FALSE(one.find("sesam") || one.find("") || one.find("sesame2"));
  EXPECT_TRUE(both.asks() && one.asks());
  EXPECT_FALSE(none.asks());
}

TEST_F(Keys, ReadingAgainKeepsWhatIsInUse) {
  KeyRules two;
  two.requests = 2;
  const std::string alice = add("alice", two), bob = add("bob");
  KeyRing ring(file, "");
  const std::shared_ptr<KeyUse> use = ring.find(alice);
  double wait = 0;
  ASSERT_EQ(use->begin(2, {}, wait), KeyUse::Admission::granted);
  remove_key(file, "bob");
  EXPECT_TRUE(ring.find(bob));
  EXPECT_EQ(ring.reload(), 1u);
  EXPECT_FALSE(ring.find(bob));
  ASSERT_EQ(ring.find(alice), use);
  EXPECT_EQ(ring.find(alice)->begin(1, {}, wait), KeyUse::Admission::too_many);
  std::ofstream(file, std::ios::app) << "broken\n";
  EXPECT_THROW(ring.reload(), Error);
  EXPECT_TRUE(ring.find(alice)) << "what was in force stays in force";
}

TEST_F(Keys, AKeyEnds) {
  KeyRules past, future;
  past.expires = parse_time("2001-01-01"), future.expires = parse_time("2999-01-01T00:00:00Z");
  const std::string old = add("old", past), young = add("young", future);
  const KeyRing ring(file, "");
  EXPECT_FALSE(ring.find(old));
  EXPECT_TRUE(ring.find(young));
}

TEST(KeyUse, CountsRequestsAtATime) {
  KeyRules rules;
  rules.requests = 3;
  KeyUse use(rules);
  double wait = 0;
  EXPECT_EQ(use.begin(2, {}, wait), KeyUse::Admission::granted);
  EXPECT_EQ(use.begin(2, {}, wait), KeyUse::Admission::too_many);
  EXPECT_EQ(use.quota({}).requests_left, 1);
  use.end(2);
  EXPECT_EQ(use.begin(3, {}, wait), KeyUse::Admission::granted);
}

TEST(KeyUse, TokensComeBackInAMinute) {
  KeyRules rules;
  rules.tokens_per_minute = 600;
  KeyUse use(rules);
  const KeyUse::Time start{seconds(1000)};
  double wait = 0;
  EXPECT_EQ(use.quota(start).tokens_left, 600);
  use.charge(1200, start);  // one long reply: a minute's worth too much
  EXPECT_EQ(use.begin(1, start, wait), KeyUse::Admission::too_fast);
  EXPECT_NEAR(wait, 60.1, 1e-6);
  EXPECT_NEAR(use.quota(start).tokens_reset, 120, 1e-6);
  EXPECT_EQ(use.begin(1, start + seconds(60), wait), KeyUse::Admission::too_fast);
  EXPECT_EQ(use.begin(1, start + seconds(61), wait), KeyUse::Admission::granted);
  EXPECT_EQ(use.quota(start + seconds(90)).tokens_left, 300);
  EXPECT_EQ(use.quota(start + seconds(1000)).tokens_left, 600) << "never more than a minute's";
}

}  // namespace
}  // namespace hadal
