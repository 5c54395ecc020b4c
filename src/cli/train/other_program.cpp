#include "cli/train/other_program.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace hadal {
namespace {

std::string read_all(int from) {
  std::string all;
  char buffer[4096];
  for (ssize_t got; (got = ::read(from, buffer, sizeof buffer)) != 0;) {
    if (got < 0 && errno != EINTR) break;
    if (got > 0) all.append(buffer, size_t(got));
  }
  return all;
}

}  // namespace

std::string run_hadal(const std::vector<std::string>& arguments) {
  std::error_code error;
  const std::string program = (std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / "hadal").string();
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);

  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw Error("cannot start {}: {}", program, std::strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  pid_t child = 0;
  const int failed = posix_spawn(&child, program.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  const std::string output = failed ? std::string() : read_all(ends[0]);
  ::close(ends[0]);
  if (failed) throw Error("cannot start {}: {}", program, std::strerror(failed));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    throw Error("`hadal {}` {}", arguments.empty() ? "" : arguments[0],
                WIFEXITED(status) ? fmt::format("failed with exit code {}", WEXITSTATUS(status))
                                  : fmt::format("was ended by signal {}", WTERMSIG(status)));
  return output;
}

}  // namespace hadal
