// Files: what is read is what was written, and a failure leaves a message and nothing else.
#include "core/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <fstream>
#include <optional>
#include <thread>

#include "core/error.h"

namespace hadal {
namespace {
namespace fs = std::filesystem;

class Files : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "hadal_files_XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder = name;
  }
  void TearDown() override {
    ::chmod(folder.c_str(), 0700);
    fs::remove_all(folder);
  }
  fs::path file(const std::string& name, const std::string& text) {
    std::ofstream(folder / name, std::ios::binary) << text;
    return folder / name;
  }
  std::vector<std::string> left() {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
    return names;
  }
  fs::path folder;
};

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST_F(Files, MapsWhatTheyHold) {
  for (const size_t size : {0, 1, 4095, 4096, 4097, 100000}) {
    std::string text(size, 'x');
    for (size_t i = 0; i < size; ++i) text[i] = char(i * 7);
    const fs::path path = file("data", text);
    const MappedFile mapped(path);
    ASSERT_EQ(mapped.bytes().size(), size);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(mapped.bytes().data()), size), text);
    EXPECT_EQ(mapped.path(), path);
    EXPECT_EQ(read_text(path), text);
  }
}

TEST_F(Files, MapErrorsNameThePathAndTheReason) {
  const std::string absent = (folder / "absent").string();
  EXPECT_EQ(message_of([&] { MappedFile f(absent); }), "cannot open " + absent + ": No such file or directory");
  EXPECT_EQ(message_of([&] { MappedFile f(folder); }), "cannot map " + folder.string() + ": expected a regular file");
  EXPECT_EQ(message_of([&] { MappedFile f("/dev/null"); }), "cannot map /dev/null: expected a regular file");
}

TEST_F(Files, ReadTextHasALimit) {
  const fs::path path = file("text", "12345");
  EXPECT_EQ(read_text(path, 5), "12345");
  EXPECT_EQ(message_of([&] { (void)read_text(path, 4); }), path.string() + ": 5 bytes, expected at most 4");
}

TEST_F(Files, WritingReplacesTheWholeFile) {
  const fs::path path = file("out", "something much longer than the new content");
  write_atomically(path, [](std::ostream& out) { out << "new"; });
  EXPECT_EQ(read_text(path), "new");
  write_atomically(folder / "fresh", [](std::ostream& out) { out.write("a\0b", 3); });
  EXPECT_EQ(read_text(folder / "fresh"), std::string("a\0b", 3));
  EXPECT_THAT(left(), testing::UnorderedElementsAre("out", "fresh"));
}

TEST_F(Files, AFailingWriterLeavesTheOldContent) {
  const fs::path path = file("out", "old");
  const std::string message = message_of([&] {
    write_atomically(path, [](std::ostream& out) {
      out << "half";
      throw Error("the model went away");
    });
  });
  EXPECT_EQ(message, "cannot write " + path.string() + ": the model went away");
  EXPECT_EQ(read_text(path), "old");
  EXPECT_THAT(left(), testing::ElementsAre("out"));
}

// A limit on the size of files fails a write in the middle, as a full disk does.
TEST_F(Files, ADiskThatIsFullLeavesTheOldContent) {
  const fs::path path = file("out", "old");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 64 << 10, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = message_of([&] {
    write_atomically(path, [](std::ostream& out) {
      for (int i = 0; i < 1000; ++i) out << std::string(1000, 'x');
    });
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, testing::StartsWith("cannot write " + path.string() + ": "));
  EXPECT_EQ(read_text(path), "old");
  EXPECT_THAT(left(), testing::ElementsAre("out"));
}

TEST_F(Files, AFolderIsLockedByOneAtATime) {
  std::atomic<int> inside = 0, most = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int round = 0; round < 20; ++round) {
        const FolderLock lock(folder);
        most = std::max<int>(most, ++inside);
        std::this_thread::yield();
        --inside;
      }
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(most, 1);
  EXPECT_THAT(message_of([&] { const FolderLock lock(folder / "none"); }), testing::HasSubstr("none: No such file or directory"));
}

TEST_F(Files, WhoWaitsForAFolderSaysSo) {
  std::optional<FolderLock> first(std::in_place, folder);
  int waited = 0;
  const auto waiting = [&] { ++waited, first.reset(); };
  const FolderLock second(folder, waiting);
  EXPECT_EQ(waited, 1);
  const fs::path other = folder / "other";
  fs::create_directory(other);
  const FolderLock third(other, waiting);
  EXPECT_EQ(waited, 1);
}

TEST_F(Files, PlacesThatCannotBeWritten) {
  const fs::path inside = folder / "absent" / "out";
  EXPECT_EQ(message_of([&] { write_atomically(inside, [](std::ostream& out) { out << 1; }); }),
            "cannot write " + inside.string() + ": No such file or directory");
  const fs::path taken = folder / "taken";
  fs::create_directory(taken);
  std::ofstream(taken / "child") << 1;
  EXPECT_THAT(message_of([&] { write_atomically(taken, [](std::ostream& out) { out << 1; }); }),
              testing::StartsWith("cannot write " + taken.string() + ": "));
  EXPECT_THAT(left(), testing::ElementsAre("taken"));
  const fs::path pipe = folder / "taken" / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(message_of([&] { write_atomically(pipe, [](std::ostream& out) { out << 1; }); }),
            "cannot write " + pipe.string() + ": expected a regular file or none, found a device, pipe or the like");
  EXPECT_TRUE(fs::is_fifo(pipe));
  if (::geteuid() == 0) return;  // for whom nothing is forbidden
  ::chmod(folder.c_str(), 0500);
  EXPECT_THAT(message_of([&] { write_atomically(folder / "out", [](std::ostream& out) { out << 1; }); }),
              testing::HasSubstr("Permission denied"));
}

}  // namespace
}  // namespace hadal
