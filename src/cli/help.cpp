#include "cli/help.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <sstream>
#include <string>

namespace hadal {
namespace {

constexpr size_t name_width = 30, line_width = 100;

class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter() {
    column_width(name_width);
    label("SUBCOMMAND", "COMMAND");
    label("Positionals", "Arguments");
  }

  std::string make_option(const CLI::Option* option, bool positional) const override {
    std::string left = "  " + option->get_name(positional, !positional);
    if (!positional && option->get_type_size() != 0) left += " " + option->get_type_name().substr(0, option->get_type_name().find(':'));
    std::string right = option->get_description();
    if (!option->get_default_str().empty()) right += " [" + option->get_default_str() + "]";
    return beside(left, right);
  }

  std::string make_subcommand(const CLI::App* command) const override {
    return beside("  " + command->get_name(), command->get_description());
  }

 private:
  static std::string beside(std::string line, const std::string& text) {
    std::string out;
    if (line.size() + 2 > name_width) {
      out = line + "\n";
      line.clear();
    }
    line.resize(name_width, ' ');
    std::istringstream words(text);
    bool first = true;
    for (std::string word; words >> word; first = false) {
      if (!first && line.size() + 1 + word.size() > line_width) {
        out += line + "\n";
        line.assign(name_width, ' ');
        first = true;
      }
      line += (first ? "" : " ") + word;
    }
    return out + line + "\n";
  }
};

}  // namespace

std::shared_ptr<CLI::FormatterBase> help_formatter() { return std::make_shared<HelpFormatter>(); }

}  // namespace hadal
