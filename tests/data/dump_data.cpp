// Data as text, and a tokenizer of it, for the tests in Python and for docs/data.md.
// usage: dump_data examples KIND SPLIT COUNT    the first examples, each followed by a byte of zero
//        dump_data types KIND SPLIT             the first example of each language and type, as Markdown
//        dump_data tokenizer FOLDER VOCAB       of made questions and texts
#include <cstdio>
#include <iostream>
#include <map>

#include "core/error.h"
#include "data/train_tokenizer.h"

using namespace hadal;

static std::unique_ptr<Source> open(const std::string& kind, const std::string& split) {
  SourceConfig config;
  config.kind = kind;
  config.split = split;
  return open_source(config);
}

static void print_types(const Source& source) {
  std::map<std::pair<std::string, std::string>, Example> first;
  for (int64_t i = 0; i < 1000; ++i) {
    const Example example = source.at(i);
    first.emplace(std::pair(example.language, example.type), example);
  }
  for (const auto& [key, example] : first)
    std::cout << "- **" << key.first << ", " << key.second << "**: " << example.text << " *" << example.question << "* **" << example.answer
              << "**\n";
}

static void train(const std::string& folder, int64_t vocab) {
  const auto questions = open("world_qa", "train"), texts = open("world_text", "train");
  const Source* sources[] = {questions.get(), texts.get()};
  train_tokenizer(sources, folder, {.vocab = vocab, .examples = 5000});
}

int main(int count, char** arguments) {
  const std::vector<std::string> words(arguments + 1, arguments + count);
  try {
    if (words.size() == 4 && words[0] == "examples") {
      const auto source = open(words[1], words[2]);
      for (int64_t i = 0; i < std::stoll(words[3]); ++i) std::cout << source->at(i).whole() << '\0';
    } else if (words.size() == 3 && words[0] == "types") {
      print_types(*open(words[1], words[2]));
    } else if (words.size() == 3 && words[0] == "tokenizer") {
      train(words[1], std::stoll(words[2]));
    } else {
      return std::fputs("usage: dump_data examples KIND SPLIT COUNT | types KIND SPLIT | tokenizer FOLDER VOCAB\n", stderr), 2;
    }
  } catch (const std::exception& error) {
    return std::fprintf(stderr, "%s\n", error.what()), 1;
  }
}
