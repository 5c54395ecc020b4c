// hadal: one program, one command per task. See commands.h.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>

#include "cli/commands.h"
#include "cli/help.h"
#include "cli/output.h"
#include "plan/machine.h"

namespace {

constexpr const char* closing = R"(Examples:
  hadal chat                                         talk to the default model
  hadal generate smollm2 -p "Name three rivers."     one answer
  hadal serve path/to/model                          the OpenAI interface at http://127.0.0.1:8080/v1
  hadal info path/to/model                           what a checkpoint is

A MODEL is a folder in Hugging Face layout, a .gguf file, or a name that `hadal models` lists.
`hadal COMMAND --help` tells everything about a command.
Exit codes: 0 done, 1 failed, 2 the command line is wrong, 130 interrupted.)";

int fail(int code, const std::string& message) {
  // Standard output first, so that the two do not change places where both go to one file.
  std::fflush(stdout);
  fmt::print(stderr, "hadal: error: {}\n", message);
  return code;
}

int run(int argc, char** argv) {
  CLI::App app("hadal loads DeepSeek models and their relatives, and runs them on ordinary processors.", "hadal");
  app.formatter(hadal::help_formatter());  // before the commands, which inherit it
  app.set_help_flag("-h,--help", "shows this text");
  app.footer(closing);
  app.set_version_flag("--version", "hadal " HADAL_VERSION, "shows the version");
  app.require_subcommand(0, 1);
  hadal::add_chat(app);
  hadal::add_generate(app);
  hadal::add_serve(app);
  hadal::add_keys(app);
  hadal::add_info(app);
  hadal::add_tokenize(app);
  hadal::add_detokenize(app);
  hadal::add_logits(app);
  hadal::add_perplexity(app);
  hadal::add_quantize(app);
  hadal::add_bench(app);
  hadal::add_models(app);
  hadal::add_presets(app);
  hadal::add_pull(app);
  hadal::add_doctor(app);

  const auto is_command = [&](const std::string& name) {
    const auto all = app.get_subcommands({});
    return std::any_of(all.begin(), all.end(), [&](const CLI::App* command) { return command->get_name() == name; });
  };
  const auto usage = [&](const std::string& message) {
    const auto chosen = app.get_subcommands();
    const std::string name = chosen.empty() ? "hadal" : "hadal " + chosen[0]->get_name();
    return fail(2, fmt::format("{}\n`{} --help` shows how it is used.", message, name));
  };
  hadal::check_isa_wish();
  try {
    if (argc < 2) {
      hadal::put(app.help());
    } else if (argv[1][0] != '-' && !is_command(argv[1])) {
      return usage(fmt::format("unknown command '{}'", argv[1]));
    } else {
      app.parse(argc, argv);
    }
    hadal::flush_output();
    return hadal::interrupted() ? 130 : 0;
  } catch (const CLI::CallForVersion& version) {
    hadal::put(std::string(version.what()) + "\n");
    return 0;
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    return usage(error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  // A reader that went away (`hadal ... | head`) ends the program the usual way, whatever the parent process ignored.
  std::signal(SIGPIPE, SIG_DFL);
  if (std::setlocale(LC_CTYPE, "") == nullptr || MB_CUR_MAX == 1) std::setlocale(LC_CTYPE, "C.UTF-8");
  try {
    return run(argc, argv);
  } catch (const std::bad_alloc&) {
    return fail(1, "out of memory");
  } catch (const std::exception& error) {
    return fail(1, error.what());
  }
}
