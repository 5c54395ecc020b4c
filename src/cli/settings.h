// A command's options from where a service keeps them: flag > environment > file > default.
#pragma once
#include <string>

namespace CLI {
class App;
}

namespace hadal {

// --config and --print-config, and a variable of the environment for each option that `command` has so far: HADAL_SERVE_PORT for --port
// of serve. For the callback of the command: apply_settings first.
void add_settings(CLI::App* command);
// Reads the file for whatever neither a flag nor the environment has said. Error: an unknown key or variable, a value out of its range.
void apply_settings(CLI::App* command);
bool wants_print(const CLI::App* command);           // --print-config
std::string settings_text(const CLI::App* command);  // in the form of the file
}  // namespace hadal
