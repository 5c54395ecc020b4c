// Repositories of a Hugging Face compatible hub, downloaded into the cache: resumed, verified, and put in place whole.
#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace hadal {

struct PullProgress {
  std::string file;                      // the one that is on its way
  int64_t file_done = 0, file_size = 0;  // bytes
  int64_t done = 0, size = 0;            // bytes of all files that are needed
};

struct PullOptions {
  std::string endpoint;  // empty: $HF_ENDPOINT, else https://huggingface.co
  std::string revision = "main";
  std::string token;  // empty: $HF_TOKEN, if any
  std::function<void(const PullProgress&)> on_progress;
  int attempts = 6;                            // of each file without a byte gained in between
  std::chrono::milliseconds first_pause{500};  // between attempts, doubled each time
  std::chrono::seconds patience{60};           // without a byte moving
};

// `reference`: "owner/name", a known model's name, or "owner/name/file.gguf" for that one file. Fetches only what running the model takes,
// and of that only what is not there yet. Returns what resolve_model then returns for the same reference.
// Error: what the hub refused and what to do about it; a file that is not what the hub says; no room on the disk.
std::filesystem::path pull(const std::string& reference, const PullOptions& options = {});

}  // namespace hadal
