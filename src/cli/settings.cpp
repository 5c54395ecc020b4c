#include "cli/settings.h"

#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <set>
#include <string_view>

#include "core/error.h"

namespace hadal {
namespace {

bool is_setting(const CLI::Option* option) { return option->get_configurable() && option->get_name(false, true) != "-h,--help"; }

std::string key_of(const CLI::Option* option) { return option->get_lnames().empty() ? option->get_name(true) : option->get_lnames()[0]; }

bool is_number(const std::string& text) {
  char* end = nullptr;
  std::strtod(text.c_str(), &end);
  return !text.empty() && std::isdigit(uint8_t(text.back())) && *end == '\0';
}

std::string prefix_of(const CLI::App* command) {
  std::string prefix = "HADAL_" + command->get_name() + "_";
  std::transform(prefix.begin(), prefix.end(), prefix.begin(), [](char c) { return char(std::toupper(uint8_t(c))); });
  return prefix;
}

void check_environment(const CLI::App* command) {
  const std::string prefix = prefix_of(command);
  std::set<std::string, std::less<>> known;
  for (const CLI::Option* option : command->get_options()) known.insert(option->get_envname());
  for (char** at = environ; *at; ++at) {
    const std::string_view entry(*at), name = entry.substr(0, entry.find('='));
    if (name.starts_with(prefix) && !known.contains(name)) throw Error("the environment: there is no setting {}", name);
  }
}

CLI::Option* find(CLI::App* command, const std::string& key) {
  for (CLI::Option* option : command->get_options())
    if (is_setting(option) && key_of(option) == key) return option;
  return nullptr;
}

void read_file(CLI::App* command, const std::string& file) {
  std::vector<CLI::ConfigItem> items;
  try {
    items = CLI::ConfigTOML().from_file(file);
  } catch (const CLI::FileError&) {
    throw Error("cannot read {}", file);
  }
  for (const CLI::ConfigItem& item : items) {
    if (!item.parents.empty() && item.parents != std::vector{command->get_name()})
      throw Error("{}: expected no section, or [{}], found [{}]", file, command->get_name(), fmt::join(item.parents, "."));
    if (item.name == "++" || item.name == "--") continue;  // where a section begins and ends
    CLI::Option* option = find(command, item.name);
    if (!option) throw Error("{}: there is no setting '{}'", file, item.fullname());
    if (option->count() > 0) continue;
    try {
      if (option->get_expected_min() == 0) {  // a flag
        option->add_result(option->get_flag_value(item.name, CLI::ConfigTOML().to_flag(item)));
      } else {
        option->add_result(item.inputs);
      }
      option->run_callback();
    } catch (const CLI::ParseError& error) {
      throw Error("{}: {}", file, error.what());
    }
  }
}

}  // namespace

void add_settings(CLI::App* command) {
  const std::string prefix = prefix_of(command);
  command->add_option("--config", "settings, one a line: port = 9000; a flag or the environment comes before it")
      ->configurable(false)
      ->type_name("FILE");
  command->add_flag("--print-config")->description("shows all settings as such a file, and ends")->configurable(false);
  for (CLI::Option* option : command->get_options()) {
    if (!is_setting(option) && key_of(option) != "config") continue;
    std::string name = prefix + key_of(option);
    std::transform(name.begin(), name.end(), name.begin(), [](char c) { return c == '-' ? '_' : char(std::toupper(uint8_t(c))); });
    option->envname(name);
  }
}

void apply_settings(CLI::App* command) {
  check_environment(command);
  const CLI::Option* file = command->get_option("--config");
  if (file->count() > 0) read_file(command, file->as<std::string>());
}

bool wants_print(const CLI::App* command) { return command->get_option("--print-config")->count() > 0; }

std::string settings_text(const CLI::App* command) {
  std::string text;
  for (const CLI::Option* option : command->get_options()) {
    if (!is_setting(option)) continue;
    std::vector<std::string> values = option->results();
    if (values.empty() && !option->get_default_str().empty()) values = {option->get_default_str()};
    if (option->get_expected_min() == 0 && values.empty()) values = {"false"};
    if (values.empty()) {
      text += fmt::format("# {} =\n", key_of(option));
      continue;
    }
    std::string written;
    for (const std::string& value : values) {
      const bool plain = value == "true" || value == "false" || is_number(value);
      written += (written.empty() ? "" : ", ") + (plain ? value : '"' + value + '"');
    }
    text += fmt::format("{} = {}\n", key_of(option), values.size() > 1 ? "[" + written + "]" : written);
  }
  return text;
}

}  // namespace hadal
