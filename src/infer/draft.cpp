#include "infer/draft.h"

#include <algorithm>
#include <cmath>

#include "core/random.h"

namespace hadal {
namespace {

uint64_t key_of(std::span<const int32_t> tokens) {
  uint64_t key = 0;
  for (const int32_t token : tokens) key = mix_bits(key ^ uint64_t(uint32_t(token)));
  return key;
}

}  // namespace

void Lookup::add(int32_t token) {
  text_.push_back(token);
  const int64_t length = int64_t(text_.size());
  if (length < shortest) return;
  const auto [at, is_new] = end_of_.try_emplace(key_of(std::span(text_).last(shortest)), length);
  before_ = is_new ? -1 : at->second;
  at->second = length;
}

Guess Lookup::guess(int64_t most) const {
  if (before_ < 0 || most < 1) return {};
  const int64_t length = int64_t(text_.size());
  int64_t agreed = 0;
  while (agreed < before_ && agreed < 32 && text_[size_t(before_ - 1 - agreed)] == text_[size_t(length - 1 - agreed)]) ++agreed;
  if (agreed < shortest) return {};  // another three tokens of the same key
  Guess guess;
  guess.kind = agreed < 4 ? 0 : agreed < 6 ? 1 : agreed < 10 ? 2 : agreed < 18 ? 3 : 4;
  // Where the text goes on up to its own end, it is taken to go on in circles.
  for (int64_t i = 0; i < std::min(most, longest); ++i) guess.tokens.push_back(text_[size_t(before_ + i % (length - before_))]);
  return guess;
}

void DraftGain::compared(int kind, int64_t tested, int64_t right) {
  const double forget = std::pow(0.98, double(tested));  // about the last fifty tokens count
  double &r = right_[size_t(kind)], &t = tested_[size_t(kind)];
  r = forget * r + double(right);
  t = forget * t + double(tested);
}

double DraftGain::chance(int kind) const {
  // Before the first comparisons: a longer agreement is likelier to go on.
  const double expected = kind < Lookup::kinds ? 0.3 + 0.12 * kind : kind == layer_kind ? 0.6 : 0.9, weight = 4;
  return (right_[size_t(kind)] + weight * expected) / (tested_[size_t(kind)] + weight);
}

void DraftGain::passed(int64_t rows, double seconds) {
  ++pass_;
  if (rows < 1 || rows > most_rows) return;
  Cost& cost = cost_[size_t(rows)];
  if (cost.when < 0)
    cost.seconds = seconds;
  else  // an interrupted pass says little
    cost.seconds += 0.2 * (std::min(seconds, 2 * cost.seconds) - cost.seconds);
  cost.when = pass_;
}

void DraftGain::layer_passed(double seconds) {
  layer_seconds_ = layer_seconds_ == 0 ? seconds : layer_seconds_ + 0.2 * (std::min(seconds, 2 * layer_seconds_) - layer_seconds_);
}

bool DraftGain::layer_pays(int64_t sequences) const {
  const double alone = seconds_of(sequences), with = std::max(seconds_of(2 * sequences), alone) + layer_seconds_;
  return alone <= 0 || (1 + chance(layer_kind)) * alone > least_gain_ * with;
}

// What was measured lately for the most rows up to these; what is not known is hoped to be as cheap and will be measured when it is tried.
double DraftGain::seconds_of(int64_t rows) const {
  constexpr int64_t lately = 256;
  for (int64_t n = std::min<int64_t>(rows, most_rows); n > 0; --n)
    if (const Cost& cost = cost_[size_t(n)]; cost.when >= 0 && pass_ - cost.when < lately) return cost.seconds;
  return 0;
}

int64_t DraftGain::best_length(std::span<const Guess* const> guesses, int64_t sequences) const {
  constexpr int64_t lengths[] = {1, 2, 3, 4, 6, 8, 12, 16};
  const double alone = seconds_of(sequences);
  if (alone <= 0) return 0;  // nothing was measured yet
  int64_t best = 0;
  double best_rate = double(sequences) / alone;
  for (const int64_t length : lengths) {
    int64_t rows = sequences;
    double tokens = double(sequences);
    for (const Guess* guess : guesses) {
      const int64_t count = std::min(length, int64_t(guess->tokens.size()));
      const double p = chance(guess->kind);
      rows += count;
      for (int64_t i = 1; i <= count; ++i) tokens += std::pow(p, double(i));
    }
    if (rows > most_rows) break;
    if (const double rate = tokens / std::max(seconds_of(rows), alone); rate > least_gain_ * best_rate) best = length, best_rate = rate;
  }
  return best;
}

}  // namespace hadal
