// How much of a test a model could have read in training: the runs of 13 words that both have, as for GPT-3 (Brown et al. 2020, appendix
// C).
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/source.h"

namespace hadal {

struct OverlapOptions {
  int64_t words = 13;                                       // of a run
  int64_t train_examples = 100'000, test_examples = 1'000;  // looked at: the first of each source. 8 bytes per run of training
  std::function<void(int64_t done, int64_t all)> progress = {};
};

struct Overlap {
  int64_t train_examples = 0, test_examples = 0;
  int64_t runs = 0, shared_runs = 0;  // of the test's, those that training has too
  int64_t touched = 0, copied = 0;    // test examples with a shared run; with more than half of their runs shared
  double copied_share() const { return test_examples > 0 ? double(copied) / double(test_examples) : 0; }
};
Overlap measure_overlap(const std::vector<const Source*>& train, const Source& test, const OverlapOptions& options = {});

// Error when a greater share of the test's examples is copied than `limit`: what is measured on them is memory.
void expect_little_overlap(const Overlap& overlap, double limit);

// Hashes of each run of `words` words; of all words where there are fewer. A word is letters and digits in a row, in lower case, or one
// character of those scripts that write without spaces.
std::vector<uint64_t> word_runs(const std::string& text, int64_t words);

}  // namespace hadal
