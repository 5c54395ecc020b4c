// Batches out of shards. Everything is a function of the batch's number, so a training run is continued with one integer.
#pragma once
#include <memory>

#include "data/shards.h"

namespace hadal {

struct StreamOptions {
  int64_t length = 512;  // tokens of a row that are predicted
  int64_t rows = 8;      // of a batch: those of all micro-batches and ranks together
  int64_t segments = 1;  // rows of so many batches in a row go on in the same text, for recurrence over segments
  uint64_t seed = 0;
};

class TokenStream {
 public:
  TokenStream(std::shared_ptr<const Shards> shards, const StreamOptions& options);  // Error: fewer tokens than one row needs
  // Rows [first, first + count) of batch `index`, each of length + 1 tokens: the model reads the first `length` and predicts the last
  // `length`. weights [count, length + 1]: 1 where the prediction of this token counts; tokens are [count, length + 1] too.
  void read(int64_t index, int64_t first, int64_t count, int32_t* tokens, uint8_t* weights) const;
  bool starts_text(int64_t index) const {
    return index % options_.segments == 0;
  }                                                 // what was remembered of batch index - 1 is of other text
  int64_t sequences() const { return sequences_; }  // of length * segments tokens; an epoch has each once
  double epoch(int64_t index) const;                // epochs that lie before batch `index`
  const StreamOptions& options() const { return options_; }

 private:
  std::shared_ptr<const Shards> shards_;
  StreamOptions options_;
  int64_t sequences_;
};

// The place of item i of [0, n) in the order of an epoch: (a i + b) mod n, a prime to n and near n times the golden ratio, so that
// neighbours in a batch come from places spread evenly over all the text.
int64_t permuted(int64_t i, int64_t n, uint64_t seed, int64_t epoch);

}  // namespace hadal
