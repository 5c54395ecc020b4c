// Guesses at the tokens that come next, so that one pass over the weights checks several of them at once. A guess never changes a reply:
// each token is drawn from the model's own logits as it would be without guesses; one that was guessed right has cost no pass of its own.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace hadal {

enum class Drafting { off, lookup, mtp, automatic };  // mtp: the checkpoint's draft layer; automatic: whichever promises more

struct DraftFigures {
  int64_t drafted = 0, accepted = 0, passes = 0;  // tokens; passes with at least one guess
};

struct Guess {
  std::vector<int32_t> tokens;
  int kind = 0;  // guesses of one kind hold about equally often
};

// Prompt look-up (Saxena 2023): what followed the last time the text ended like this.
class Lookup {
 public:
  static constexpr int64_t shortest = 3, longest = 16;  // tokens that must agree; tokens of a guess
  static constexpr int kinds = 5;                       // by how many agreed: 3, 4-5, 6-9, 10-17, more
  void add(int32_t token);
  Guess guess(int64_t most) const;

 private:
  std::vector<int32_t> text_;
  std::unordered_map<uint64_t, int64_t> end_of_;  // of the last three tokens somewhere: where the text went on after them, the latest place
  int64_t before_ = -1;                           // the same of the text's own last three, before they were entered
};

// What guesses have been worth in this engine: how often those of each kind hold, and what passes of so many rows cost.
class DraftGain {
 public:
  static constexpr int layer_kind = Lookup::kinds, forced_kind = layer_kind + 1, kinds = forced_kind + 1, most_rows = 64;
  explicit DraftGain(double least_gain = 1.03) : least_gain_(least_gain) {}  // how much faster it must promise to be; 0: guess always
  // `right` of the guess's first tokens agreed with the reply, `tested` were compared.
  void compared(int kind, int64_t tested, int64_t right);
  void passed(int64_t rows, double seconds);  // a pass of replies only
  // How many tokens of each guess to check in a pass of `sequences` replies: at most so many that the tokens per second expected are the
  // greatest. 0: a pass of its own for each token is better.
  int64_t best_length(std::span<const Guess* const> guesses, int64_t sequences) const;
  double chance(int kind) const;             // that a guessed token holds when those before it do
  void layer_passed(double seconds);         // the draft layer, one guess for each of some replies
  bool layer_pays(int64_t sequences) const;  // its guesses are worth its own time too

 private:
  struct Cost {
    double seconds = 0;  // a running mean
    int64_t when = -1;   // the pass it was last measured in
  };
  double seconds_of(int64_t rows) const;
  double least_gain_;
  std::array<double, kinds> right_{}, tested_{};
  std::array<Cost, most_rows + 1> cost_{};
  double layer_seconds_ = 0;
  int64_t pass_ = 0;
};

}  // namespace hadal
