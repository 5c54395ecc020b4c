// The engine works for training as a program of its own: both have their threads, and meet in files.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace hadal {

// Runs the program `hadal` beside this one and returns what it put out. Error: it cannot be started, or fails; its own message is on
// standard error by then.
std::string run_hadal(const std::vector<std::string>& arguments);

}  // namespace hadal
