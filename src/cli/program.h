// What every program with commands does around them: help, mistakes on the command line, exit codes, signals.
#pragma once
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace hadal {

struct Program {
  std::string name, what, closing;  // closing: the end of its help
  std::vector<void (*)(CLI::App&)> commands;
  std::string other = {};  // the program beside this one that runs `other_commands`
  std::vector<std::string> other_commands = {};
};

int run_program(const Program& program, int argc, char** argv);  // the exit code

}  // namespace hadal
