// Reads past the page cache: every byte where it belongs, urgent ones first, and clear errors for files that change.
#include "core/disk_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <fstream>
#include <mutex>
#include <random>
#include <vector>

#include "core/error.h"
#include "core/memory.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;
constexpr int64_t page = DiskReader::alignment;

class Reading : public testing::TestWithParam<DiskReader::Path> {
 protected:
  void SetUp() override {
    path_ = fs::temp_directory_path() / ("hadal_disk_" + std::to_string(::getpid()));
    std::mt19937_64 random(7);
    for (uint64_t& word : content_) word = random();
    std::ofstream(path_, std::ios::binary).write(reinterpret_cast<const char*>(content_.data()), int64_t(size()));
  }
  void TearDown() override { fs::remove(path_); }

  size_t size() const { return content_.size() * 8; }
  const std::byte* at(int64_t offset) const { return reinterpret_cast<const std::byte*>(content_.data()) + offset; }

  // Reads and waits; the errors in the order in which the reads ended.
  struct Wish {
    int64_t offset, bytes;
    std::byte* to;
    bool urgent = true;
  };
  std::vector<std::string> read(DiskReader& reader, const std::vector<Wish>& wishes, std::vector<size_t>* order = nullptr) {
    const int file = reader.open(path_);
    std::mutex mutex;
    std::condition_variable came;
    std::vector<std::string> errors;
    for (size_t i = 0; i < wishes.size(); ++i)
      reader.read({file, wishes[i].offset, wishes[i].bytes, wishes[i].to, wishes[i].urgent, [&, i](std::string error) {
                     const std::lock_guard lock(mutex);
                     errors.push_back(std::move(error));
                     if (order) order->push_back(i);
                     came.notify_one();
                   }});
    std::unique_lock lock(mutex);
    came.wait(lock, [&] { return errors.size() == wishes.size(); });
    return errors;
  }

  std::vector<uint64_t> content_ = std::vector<uint64_t>(5 << 17);  // 5 MB
  fs::path path_;
};

TEST_P(Reading, BringsEveryByte) {
  DiskReader reader(GetParam());
  if (reader.path() != GetParam()) GTEST_SKIP() << "this system has no io_uring";
  Buffer room(8 << 20, "a test");
  std::vector<Wish> wishes;
  std::byte* to = room.data();
  for (const auto& [offset, bytes] : std::vector<std::pair<int64_t, int64_t>>{
           {0, 1}, {page, page}, {3 * page, page + 1}, {0, 3 << 20}, {64 * page, (1 << 20) + 77}, {int64_t(size()) - page, page}}) {
    wishes.push_back({offset, bytes, to});
    to += (bytes + page - 1) / page * page;
  }
  EXPECT_THAT(read(reader, wishes), testing::Each(""));
  for (const Wish& w : wishes) EXPECT_EQ(std::memcmp(w.to, at(w.offset), size_t(w.bytes)), 0) << w.bytes << " bytes at " << w.offset;
  int64_t all = 0;
  for (const Wish& w : wishes) all += w.bytes;
  EXPECT_EQ(reader.bytes_read(), all);
  EXPECT_GT(reader.seconds_reading(), 0);
}

TEST_P(Reading, UrgentReadsOvertakeThoseThatHaveNotBegun) {
  DiskReader reader(GetParam(), 1);
  Buffer room(size_t(40) << 20, "a test");
  std::vector<Wish> wishes;
  for (int i = 0; i < 8; ++i) wishes.push_back({0, 4 << 20, room.data() + (i << 22), i >= 4});
  std::vector<size_t> order;
  EXPECT_THAT(read(reader, wishes, &order), testing::Each(""));
  const auto last_urgent = std::find_if(order.rbegin(), order.rend(), [](size_t i) { return i >= 4; });
  EXPECT_LE(order.rend() - last_urgent, 5) << "at most one patient read had begun when the urgent ones came";
}

TEST_P(Reading, AFileThatHasBecomeShorterIsAnError) {
  DiskReader reader(GetParam());
  fs::resize_file(path_, 2 << 20);
  Buffer room(4 << 20, "a test");
  const std::vector<std::string> errors = read(reader, {{0, 3 << 20, room.data()}});
  EXPECT_THAT(errors[0], testing::AllOf(testing::HasSubstr(path_.string()), testing::HasSubstr("expected 1048576 bytes at 2097152"),
                                        testing::HasSubstr("the file has become shorter")));
  EXPECT_THAT(read(reader, {{0, 1 << 20, room.data()}}), testing::Each("")) << "the reader goes on";
}

TEST_P(Reading, EndsWithReadsThatNobodyWaitsFor) {
  Buffer room(size_t(40) << 20, "a test");
  DiskReader reader(GetParam());
  const int file = reader.open(path_);
  for (int i = 0; i < 8; ++i) reader.read({file, 0, 4 << 20, room.data() + (i << 22), false, [](const std::string&) {}});
}

TEST(DiskReader, SaysWhatItCannotOpen) {
  DiskReader reader;
  try {
    reader.open("/absent/model.safetensors");
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "cannot open /absent/model.safetensors: No such file or directory");
  }
}

TEST_P(Reading, TheDiskIsMeasured) { EXPECT_GT(measure_disk(path_, 256 << 10, 0.01), 1e6); }

INSTANTIATE_TEST_SUITE_P(Paths, Reading, testing::Values(DiskReader::Path::uring, DiskReader::Path::pread),
                         [](const auto& info) { return info.param == DiskReader::Path::uring ? "uring" : "pread"; });

}  // namespace
}  // namespace hadal
