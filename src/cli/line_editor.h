// Lines from a person: edited, with history, on a terminal; plain lines from anything else.
#pragma once
#include <filesystem>
#include <memory>
#include <string>

namespace hadal {

class LineEditor {
 public:
  explicit LineEditor(const std::filesystem::path& history);  // a file that may not exist; one that cannot be written is no error
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  enum class Event { line, interrupted, end };
  Event read(std::string& line);  // without its newline; a line that ends with a backslash goes on in the next
  bool interactive() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hadal
