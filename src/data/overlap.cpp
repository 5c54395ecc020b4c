#include "data/overlap.h"

#include <algorithm>

#include "core/error.h"
#include "core/random.h"
#include "model/unicode.h"

namespace hadal {
namespace {

bool is_one_word(uint32_t point) {
  return point >= 0x2e80 && point < 0xff00 && !(point >= 0x3000 && point <= 0x303f);
}  // Chinese and its like
bool is_letter(uint32_t point) {
  if (point < 0x80) return (point >= '0' && point <= '9') || ((point | 0x20) >= 'a' && (point | 0x20) <= 'z');
  return point >= 0xc0 && point < 0x2000;
}

std::vector<uint64_t> hashes_of_words(std::string_view text) {
  std::vector<uint64_t> words;
  std::string word;
  const auto flush = [&] {
    if (!word.empty()) words.push_back(hash_bytes(word));
    word.clear();
  };
  while (!text.empty()) {
    const Utf8Step step = utf8_step(text);
    const std::string_view character = text.substr(0, step.bytes);
    text.remove_prefix(step.bytes);
    const bool alone = step.kind == Utf8Step::whole && is_one_word(step.point);
    if (alone || step.kind != Utf8Step::whole || !is_letter(step.point)) flush();
    if (alone) words.push_back(hash_bytes(character));
    if (!alone && step.kind == Utf8Step::whole && is_letter(step.point))
      word += character.size() == 1 && character[0] >= 'A' && character[0] <= 'Z' ? std::string(1, char(character[0] | 0x20)) : character;
  }
  flush();
  return words;
}

}  // namespace

std::vector<uint64_t> word_runs(const std::string& text, int64_t words) {
  const std::vector<uint64_t> all = hashes_of_words(text);
  const size_t length = std::min(size_t(words), all.size());
  std::vector<uint64_t> runs;
  for (size_t first = 0; length > 0 && first + length <= all.size(); ++first) {
    uint64_t hash = length;
    for (size_t i = first; i < first + length; ++i) hash = mix_bits(hash ^ all[i]);
    runs.push_back(hash);
  }
  return runs;
}

Overlap measure_overlap(const std::vector<const Source*>& train, const Source& test, const OverlapOptions& options) {
  if (options.words < 1) throw Error("an overlap of runs of {} words: expected at least 1", options.words);
  Overlap overlap;
  overlap.test_examples = std::min(options.test_examples, test.size());
  for (const Source* source : train) overlap.train_examples += std::min(options.train_examples, source->size());
  const int64_t all = overlap.train_examples + overlap.test_examples;
  int64_t done = 0;
  const auto runs_of = [&](const Example& example) {
    if (options.progress && done % 100 == 0) options.progress(done, all);
    ++done;
    return word_runs(example.whole(), options.words);
  };
  std::vector<uint64_t> known;
  for (const Source* source : train)
    for (int64_t i = 0; i < std::min(options.train_examples, source->size()); ++i) {
      const std::vector<uint64_t> runs = runs_of(source->at(i));
      known.insert(known.end(), runs.begin(), runs.end());
    }
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());

  for (int64_t i = 0; i < overlap.test_examples; ++i) {
    const std::vector<uint64_t> runs = runs_of(test.at(i));
    const auto shared =
        std::count_if(runs.begin(), runs.end(), [&](uint64_t run) { return std::binary_search(known.begin(), known.end(), run); });
    overlap.runs += int64_t(runs.size());
    overlap.shared_runs += shared;
    overlap.touched += shared > 0;
    overlap.copied += 2 * shared > int64_t(runs.size());
  }
  return overlap;
}

void expect_little_overlap(const Overlap& overlap, double limit) {
  if (overlap.copied_share() > limit)
    throw Error("{} of {} test examples are in the training data by more than half: {:.2f} %, expected at most {:.2f} %", overlap.copied,
                overlap.test_examples, 100 * overlap.copied_share(), 100 * limit);
}

}  // namespace hadal
