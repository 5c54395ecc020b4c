// One thread owns the ring: it cuts reads into pieces, keeps `in_flight` of them with the disk, urgent reads first, and reports each read
// when its last piece has come. Where the system has no io_uring the same thread reads piece by piece.
#include "core/disk_reader.h"

#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <list>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/memory.h"

namespace hadal {
namespace {

constexpr int64_t piece_bytes = 1 << 20;  // the size at which one request after the other keeps a disk busy

int64_t round_up(int64_t bytes) { return (bytes + DiskReader::alignment - 1) / DiskReader::alignment * DiskReader::alignment; }

struct Job {  // one read: what has been asked of the disk and what has come
  DiskReader::Read read;
  int64_t asked = 0, came = 0;
  int pieces = 0;  // with the disk
  std::string error;
  bool all_asked() const { return asked >= read.bytes || !error.empty(); }
};

struct Piece {
  Job* job = nullptr;
  int64_t offset = 0;  // from the read's beginning
};

using Clock = std::chrono::steady_clock;

}  // namespace

struct DiskReader::State {
  struct File {
    int fd;
    std::string name;
  };

  Path path;
  int depth;
  io_uring ring{};
  std::vector<Piece> pieces;  // of the requests in flight, by number
  std::vector<int> idle;      // numbers that are free
  std::list<Job> jobs;        // begun and not finished; only the reader's thread touches them

  std::mutex mutex;  // guards what follows
  std::condition_variable wake;
  std::deque<Read> urgent, later;
  std::deque<File> files;
  bool stop = false;
  std::atomic<int64_t> bytes{0};
  std::atomic<int64_t> busy_nanoseconds{0};
  std::thread thread;

  State(Path wished, int in_flight) : path(wished), depth(in_flight), pieces(size_t(in_flight)) {
    CHECK(in_flight >= 1);
    if (path == Path::uring && ::io_uring_queue_init(unsigned(depth), &ring, 0) != 0) path = Path::pread;
    if (path == Path::pread) depth = 1;
    for (int i = 0; i < depth; ++i) idle.push_back(i);
    thread = std::thread([this] { serve(); });
  }

  ~State() {
    {
      const std::lock_guard lock(mutex);
      stop = true;
    }
    wake.notify_one();
    thread.join();
    if (path == Path::uring) ::io_uring_queue_exit(&ring);
    for (const File& file : files) ::close(file.fd);
  }

  File file(int number) {
    const std::lock_guard lock(mutex);
    return files[size_t(number)];
  }

  void serve() {
    for (;;) {
      if (!take_work()) return;
      const auto start = Clock::now();
      while (hand_out_piece()) {
      }
      if (idle.size() < size_t(depth)) wait_for_piece();
      report_finished();
      busy_nanoseconds += std::chrono::nanoseconds(Clock::now() - start).count();
    }
  }

  // Urgent reads go in front of those begun that are not; with nothing to do it sleeps. False: the end.
  bool take_work() {
    std::unique_lock lock(mutex);
    if (jobs.empty()) wake.wait(lock, [&] { return stop || !urgent.empty() || !later.empty(); });
    if (stop) {
      urgent.clear();
      later.clear();
      for (Job& job : jobs) job.asked = job.read.bytes;
      return idle.size() < size_t(depth);
    }
    auto before = std::ranges::find_if(jobs, [](const Job& job) { return !job.read.urgent; });
    for (; !urgent.empty(); urgent.pop_front()) jobs.insert(before, Job{.read = std::move(urgent.front()), .error = {}});
    const bool starved = std::ranges::all_of(jobs, &Job::all_asked);
    if (starved && !later.empty()) {
      jobs.push_back(Job{.read = std::move(later.front()), .error = {}});
      later.pop_front();
    }
    return true;
  }

  bool hand_out_piece() {
    if (idle.empty()) return false;
    const auto job = std::ranges::find_if(jobs, [](const Job& j) { return !j.all_asked(); });
    if (job == jobs.end()) return false;
    const int64_t offset = job->asked, size = std::min(piece_bytes, round_up(job->read.bytes - offset));
    const int fd = file(job->read.file).fd;
    job->asked += size;
    ++job->pieces;
    const int number = idle.back();
    idle.pop_back();
    pieces[size_t(number)] = {&*job, offset};
    if (path == Path::pread) {
      const ssize_t got = ::pread(fd, job->read.to + offset, size_t(size), job->read.offset + offset);
      finish_piece(number, got < 0 ? -errno : int64_t(got));
      return false;  // one piece, then look for what is more urgent
    }
    io_uring_sqe* request = ::io_uring_get_sqe(&ring);
    CHECK(request != nullptr);
    ::io_uring_prep_read(request, fd, job->read.to + offset, unsigned(size), uint64_t(job->read.offset + offset));
    request->user_data = uint64_t(number);
    const int status = ::io_uring_submit(&ring);
    CHECK(status == 1);
    return true;
  }

  void wait_for_piece() {
    io_uring_cqe* answer = nullptr;
    int status;
    do status = ::io_uring_wait_cqe(&ring, &answer);
    while (status == -EINTR);
    CHECK(status == 0);
    const int number = int(answer->user_data);
    const int64_t result = answer->res;
    ::io_uring_cqe_seen(&ring, answer);
    finish_piece(number, result);
  }

  void finish_piece(int number, int64_t result) {
    const Piece piece = pieces[size_t(number)];
    Job& job = *piece.job;
    idle.push_back(number);
    --job.pieces;
    const int64_t want = std::min(piece_bytes, job.read.bytes - piece.offset);  // without the padding of the last piece
    if (result >= want) {
      job.came += want;
      bytes += want;
    } else if (job.error.empty()) {
      const std::string what = result < 0 ? std::strerror(int(-result)) : fmt::format("found {}: the file has become shorter", result);
      job.error =
          fmt::format("cannot read {}: expected {} bytes at {}, {}", file(job.read.file).name, want, job.read.offset + piece.offset, what);
    }
  }

  void report_finished() {
    for (auto job = jobs.begin(); job != jobs.end();) {
      if (job->pieces > 0 || !job->all_asked() || (job->error.empty() && job->came < job->read.bytes)) {
        ++job;
        continue;
      }
      job->read.done(std::move(job->error));
      job = jobs.erase(job);
    }
  }
};

DiskReader::DiskReader(Path path, int in_flight) : state_(std::make_unique<State>(path, in_flight)) {}
DiskReader::~DiskReader() = default;

namespace {

int open_direct(const std::filesystem::path& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (fd < 0 && errno == EINVAL) fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);  // a file system in memory knows no direct reads
  if (fd < 0) throw Error("cannot open {}: {}", path.string(), std::strerror(errno));
  return fd;
}

}  // namespace

int DiskReader::open(const std::filesystem::path& path) {
  const int fd = open_direct(path);
  const std::lock_guard lock(state_->mutex);
  state_->files.push_back({fd, path.string()});
  return int(state_->files.size()) - 1;
}

void DiskReader::read(Read read) {
  CHECK(read.offset % alignment == 0 && reinterpret_cast<uintptr_t>(read.to) % alignment == 0 && read.bytes > 0);
  {
    const std::lock_guard lock(state_->mutex);
    (read.urgent ? state_->urgent : state_->later).push_back(std::move(read));
  }
  state_->wake.notify_one();
}

void DiskReader::hurry(const std::byte* to) {
  const std::lock_guard lock(state_->mutex);
  const auto waiting = std::ranges::find(state_->later, to, &Read::to);
  if (waiting == state_->later.end()) return;
  state_->urgent.push_back(std::move(*waiting));
  state_->urgent.back().urgent = true;
  state_->later.erase(waiting);
}

int64_t DiskReader::bytes_read() const { return state_->bytes; }
double DiskReader::seconds_reading() const { return double(state_->busy_nanoseconds) * 1e-9; }
DiskReader::Path DiskReader::path() const { return state_->path; }

double measure_disk(const std::filesystem::path& path, int64_t piece, double seconds) {
  constexpr int together = 8;
  const int64_t size = int64_t(std::filesystem::file_size(path)) / DiskReader::alignment * DiskReader::alignment;
  const int64_t bytes = std::min(round_up(piece), size);
  if (bytes == 0)
    throw Error("cannot measure the disk with {}: expected a file of at least {} bytes", path.string(), DiskReader::alignment);
  const Buffer room(size_t(bytes * together), "measuring the disk");
  std::mutex mutex;
  std::condition_variable came;
  int missing = 0;
  std::string error;
  std::mt19937_64 random(1);
  DiskReader reader;
  const int file = reader.open(path);
  const auto start = Clock::now();
  double passed = 0;
  while (passed < seconds && error.empty()) {
    missing = together;
    for (int i = 0; i < together; ++i)
      reader.read({.file = file,
                   .offset = int64_t(random() % uint64_t((size - bytes) / DiskReader::alignment + 1)) * DiskReader::alignment,
                   .bytes = bytes,
                   .to = room.data() + i * bytes,
                   .urgent = true,
                   .done = [&](std::string what) {
                     const std::lock_guard lock(mutex);
                     if (error.empty()) error = std::move(what);
                     if (--missing == 0) came.notify_one();
                   }});
    std::unique_lock lock(mutex);
    came.wait(lock, [&] { return missing == 0; });
    passed = std::chrono::duration<double>(Clock::now() - start).count();
  }
  if (!error.empty()) throw Error("{}", error);
  return double(reader.bytes_read()) / passed;
}

}  // namespace hadal
