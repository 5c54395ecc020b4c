#include "cli/program.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <new>

#include "cli/help.h"
#include "cli/output.h"
#include "core/error.h"
#include "plan/machine.h"

namespace hadal {
namespace {

int fail(const Program& program, int code, const std::string& message) {
  // Standard output first, so that the two do not change places where both go to one file.
  try {
    flush_output();
  } catch (const Error&) {
    // `message` is what is wrong
  }
  fmt::print(stderr, "{}: error: {}\n", program.name, message);
  return code;
}

// As git does: the other program stands beside this one. Returns only where it does not run.
int run_other(const Program& program, char** argv) {
  std::error_code error;
  const std::filesystem::path other = std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / program.other;
  execv(other.c_str(), argv);
  return fail(program, 1,
              fmt::format("`{} {}` is done by {}, which cannot be started: {}\n"
                          "It is built where libtorch is: .venv/bin/pip install -r requirements-train.txt, then script/build release {}",
                          program.name, argv[1], other.string(), std::strerror(errno), program.other));
}

int run_commands(const Program& program, int argc, char** argv) {
  CLI::App app(program.what, program.name);
  app.formatter(help_formatter());  // before the commands, which inherit it
  app.set_help_flag("-h,--help", "shows this text");
  app.footer(program.closing);
  app.set_version_flag("--version", program.name + " " HADAL_VERSION, "shows the version");
  app.require_subcommand(0, 1);
  for (const auto add : program.commands) add(app);

  const auto is_command = [&](const std::string& name) {
    const auto all = app.get_subcommands({});
    return std::any_of(all.begin(), all.end(), [&](const CLI::App* command) { return command->get_name() == name; });
  };
  const auto usage = [&](const std::string& message) {
    const auto chosen = app.get_subcommands();
    const std::string name = chosen.empty() ? program.name : program.name + " " + chosen[0]->get_name();
    return fail(program, 2, fmt::format("{}\n`{} --help` shows how it is used.", message, name));
  };
  check_isa_wish();
  try {
    if (argc < 2) {
      put(app.help());
    } else if (argv[1][0] != '-' && !is_command(argv[1])) {
      if (std::ranges::find(program.other_commands, argv[1]) != program.other_commands.end()) return run_other(program, argv);
      return usage(fmt::format("unknown command '{}'", argv[1]));
    } else {
      app.parse(argc, argv);
    }
    flush_output();
    return interrupted() ? 130 : 0;
  } catch (const CLI::CallForVersion& version) {
    put(std::string(version.what()) + "\n");
    flush_output();
    return 0;
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    return usage(error.what());
  }
}

}  // namespace

int run_program(const Program& program, int argc, char** argv) {
  // A reader that went away (`hadal ... | head`) ends the program the usual way, whatever the parent process ignored.
  std::signal(SIGPIPE, SIG_DFL);
  if (std::setlocale(LC_CTYPE, "") == nullptr || MB_CUR_MAX == 1) std::setlocale(LC_CTYPE, "C.UTF-8");
  try {
    return run_commands(program, argc, argv);
  } catch (const std::bad_alloc&) {
    return fail(program, 1, "out of memory");
  } catch (const std::exception& error) {
    return fail(program, 1, error.what());
  }
}

}  // namespace hadal
