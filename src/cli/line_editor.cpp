#include "cli/line_editor.h"

#include <histedit.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cwchar>
#include <iostream>

#include "cli/output.h"

namespace hadal {
namespace fs = std::filesystem;

struct LineEditor::State {
  EditLine* editor = nullptr;  // null: not a terminal
  History* history = nullptr;
  HistEvent event{};
  std::string file;
  bool continues = false;  // the prompt of a line that goes on
  std::mbstate_t decoding{};

  static State& of(EditLine* editor) {
    State* self = nullptr;
    ::el_get(editor, EL_CLIENTDATA, &self);
    return *self;
  }
  static char* prompt(EditLine* editor) {
    static char first[] = "> ", next[] = ". ";
    return of(editor).continues ? next : first;
  }
  // One character of the keyboard. libedit's own reader goes on after a signal; this one lets Ctrl-C end the line.
  static int read_character(EditLine* editor, wchar_t* out) {
    State& self = of(editor);
    for (;;) {
      char byte;
      const ssize_t got = ::read(STDIN_FILENO, &byte, 1);
      if (got < 0 && errno == EINTR && !interrupted()) continue;
      if (got <= 0) return got < 0 ? -1 : 0;
      const size_t length = std::mbrtowc(out, &byte, 1, &self.decoding);
      if (length == size_t(-2)) continue;  // the character has more bytes
      if (length != size_t(-1)) return 1;
      self.decoding = {};  // no character at all: the byte is dropped
    }
  }
};

LineEditor::LineEditor(const fs::path& history) : state_(std::make_unique<State>()) {
  State& s = *state_;
  if (!::isatty(STDIN_FILENO) || !::isatty(STDOUT_FILENO)) return;
  s.editor = ::el_init("hadal", stdin, stdout, stderr);
  if (s.editor == nullptr) return;
  ::el_set(s.editor, EL_CLIENTDATA, &s);
  ::el_set(s.editor, EL_PROMPT, &State::prompt);
  ::el_set(s.editor, EL_GETCFN, &State::read_character);
  ::el_set(s.editor, EL_EDITOR, "emacs");
  ::el_set(s.editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  s.history = ::history_init();
  ::history(s.history, &s.event, H_SETSIZE, 1000);
  ::history(s.history, &s.event, H_SETUNIQUE, 1);
  ::el_set(s.editor, EL_HIST, &::history, s.history);
  std::error_code ignored;
  fs::create_directories(history.parent_path(), ignored);
  s.file = history.string();
  ::history(s.history, &s.event, H_LOAD, s.file.c_str());
}

LineEditor::~LineEditor() {
  if (state_->history != nullptr) ::history_end(state_->history);
  if (state_->editor != nullptr) ::el_end(state_->editor);
}

bool LineEditor::interactive() const { return state_->editor != nullptr; }

LineEditor::Event LineEditor::read(std::string& line) {
  State& s = *state_;
  flush_output();
  line.clear();
  s.continues = false;
  for (;;) {
    std::string part;
    if (s.editor != nullptr) {
      int length = 0;
      const char* text = ::el_gets(s.editor, &length);
      if (interrupted()) return Event::interrupted;
      if (text == nullptr || length <= 0) return Event::end;
      part.assign(text, size_t(length));
      if (part.ends_with('\n')) part.pop_back();
    } else if (!std::getline(std::cin, part)) {
      if (interrupted()) return Event::interrupted;
      if (line.empty()) return Event::end;
    }
    s.continues = part.ends_with('\\');
    line += part;
    if (!s.continues) break;
    line.back() = '\n';
  }
  if (s.history != nullptr && line.find_first_not_of(" \t\n") != line.npos) {
    ::history(s.history, &s.event, H_ENTER, line.c_str());
    ::history(s.history, &s.event, H_SAVE, s.file.c_str());
  }
  return Event::line;
}

}  // namespace hadal
