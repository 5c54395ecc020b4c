// What models learn from: examples, each a pure function of its number.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace hadal {

struct Turn {
  std::string question, answer;
  std::string type = {};  // as an example's
};

struct Example {
  std::string text;              // plain text, or what a question is about
  std::string question, answer;  // empty: plain text, every token of which counts in the loss. Otherwise the answers alone do
  std::string type, language;    // of a question, where its source knows them: "two_hop", "english"
  std::vector<Turn> more = {};   // how the talk goes on
  bool is_question() const { return !question.empty(); }
  std::string prompt() const { return text.empty() ? question : text + "\n" + question; }  // what the user says
  std::string whole() const {
    std::string all = is_question() ? prompt() + "\n" + answer : text;
    for (const Turn& turn : more) all += "\n" + turn.question + "\n" + turn.answer;
    return all;
  }
};

constexpr int64_t endless = int64_t(1) << 40;  // the size of a generator that never ends

class Source {  // used by all threads
 public:
  virtual ~Source() = default;
  virtual int64_t size() const = 0;             // examples
  virtual Example at(int64_t index) const = 0;  // 0 <= index < size(). Error: names the file and the place
  virtual uint64_t hash() const = 0;            // of all that decides what the examples are
};

struct SourceConfig {
  std::string kind;             // one of source_kinds()
  std::string path;             // files: a file, a folder or a pattern (*.txt). corpus: its name
  std::string split = "train";  // files: train, test (every 50th example), all. Worlds: train, worlds, templates, compositions
  uint64_t seed = 0;            // generators
  int64_t questions = 1;        // world_qa: about each document, one after another
  int64_t facts = 0;            // world_qa: told in a document, or as many more as a question needs; 0: 7 to 10
  std::vector<std::string> languages, types, relations;                                   // generators; empty: all
  std::string text_field = "text", question_field = "question", answer_field = "answer";  // jsonl
};

struct SourceKind {
  std::string name, note;
  std::unique_ptr<Source> (*open)(const SourceConfig& config);
};
const std::vector<SourceKind>& source_kinds();

// For what is made of a source and kept: its hash and its first examples, which differ where a generator was changed.
uint64_t hash_of_examples(const Source& source);

std::unique_ptr<Source> open_source(const SourceConfig& config);  // Error: an unknown kind, no data, not UTF-8, an unknown split

}  // namespace hadal
