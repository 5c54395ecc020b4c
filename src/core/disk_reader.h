// Reads pieces of files past the page cache (O_DIRECT), a few at a time, beside the thread that computes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

namespace hadal {

class DiskReader {
 public:
  static constexpr int64_t alignment = 4096;  // of offsets, sizes and memory
  enum class Path { uring, pread };           // the second where the system refuses the first, and in tests

  // in_flight: requests that the disk works on at once. Error: no thread.
  explicit DiskReader(Path path = Path::uring, int in_flight = 4);
  ~DiskReader();  // waits for what is in flight; what has not begun is dropped and not reported

  int open(const std::filesystem::path& path);  // a number for read(); Error: names the path and the reason

  struct Read {
    int file;
    int64_t offset, bytes;  // offset and `to` aligned; bytes need not be: the last piece is read up to the alignment
    std::byte* to;          // room for bytes rounded up to the alignment
    bool urgent;            // before all that is not
    // Called once, on the reader's own thread: empty, or what went wrong (a short read is an error too).
    std::function<void(std::string error)> done;
  };
  void read(Read read);             // returns at once
  void hurry(const std::byte* to);  // the read into `to` becomes urgent if it has not begun
  int64_t bytes_read() const;       // so far
  double seconds_reading() const;   // time in which at least one request was in flight
  Path path() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Bytes per second of random aligned reads of a file, `piece` bytes each, for about `seconds`. Error: names the path and the reason.
double measure_disk(const std::filesystem::path& path, int64_t piece, double seconds);

}  // namespace hadal
