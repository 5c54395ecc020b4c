// pull_repository ENDPOINT REFERENCE [REVISION]: `pull` with short pauses, for tests/python/test_pull.py. Prints the path, progress goes to
// standard error, an Error ends it with status 1.
#include <cstdio>

#include "core/error.h"
#include "model/hub.h"

int main(int count, char** arguments) {
  if (count < 3) return 2;
  hadal::PullOptions options;
  options.endpoint = arguments[1];
  if (count > 3) options.revision = arguments[3];
  options.attempts = 3;
  options.first_pause = std::chrono::milliseconds(5);
  options.patience = std::chrono::seconds(2);
  options.on_progress = [](const hadal::PullProgress& p) {
    std::fprintf(stderr, "%s %lld/%lld %lld/%lld\n", p.file.c_str(), static_cast<long long>(p.file_done),
                 static_cast<long long>(p.file_size), static_cast<long long>(p.done), static_cast<long long>(p.size));
  };
  try {
    std::printf("%s\n", hadal::pull(arguments[2], options).c_str());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
}
