// Examples that a test writes down.
#pragma once
#include <string>
#include <vector>

#include "data/source.h"

namespace hadal::test {

class FixedSource : public Source {
 public:
  std::vector<Example> examples;
  int64_t size() const override { return int64_t(examples.size()); }
  Example at(int64_t index) const override { return examples[size_t(index)]; }
  uint64_t hash() const override { return examples.size(); }
  void add(const std::string& text) { examples.push_back({text, {}, {}, {}, {}}); }
  void ask(const std::string& text, const std::string& question, const std::string& answer) {
    examples.push_back({text, question, answer, {}, {}});
  }
};

}  // namespace hadal::test
