// Losses between a teacher's predictions and a student's, computed a few rows at a time: the logits of a batch never exist at once.
#pragma once
#include "train/torch.h"

#include <vector>

#include "train/distill_config.h"
#include "train/forward.h"

namespace hadal::train {

struct Predictions {  // of rows that count: logits = x head^T
  Tensor x;           // [rows, dim], behind the final norm
  Tensor head;        // [vocab, dim]
};
// Of the rows of x [batch, time, dim] (what forward() returns) that `rows` (int64, of batch * time) names.
Predictions predictions(const Params<Tensor>& params, const Tensor& x, const Tensor& rows, const Pass& pass);

struct SampledTeacher {  // logit_cache.h
  Tensor ids;            // int64 [rows, n]
  Tensor probabilities;  // float [rows, n]
  Tensor entropy;        // float [rows]
};

struct Labels {
  Tensor ids;      // int64 [rows]
  Tensor weights;  // float [rows]
};

inline constexpr int64_t rows_with_logits = 256;  // at a time

// The sum over rows of weight * loss; its gradient goes to the student's x and head.
Tensor token_loss(const Predictions& student, const Predictions& teacher, const Labels& labels, const TokenLoss& loss,
                  int64_t chunk = rows_with_logits);
// An estimate of it, and of its gradient, without bias. The loss has no reverse, no jsd, and temperature 1.
Tensor token_loss(const Predictions& student, const SampledTeacher& teacher, const Labels& labels, const TokenLoss& loss,
                  int64_t chunk = rows_with_logits);

class HiddenLoss {
 public:
  // Error: a layer that a model does not have.
  HiddenLoss(std::vector<HiddenPair> pairs, const ModelConfig& teacher, const ModelConfig& student, uint64_t seed);
  const std::vector<Tensor>& projections() const { return projections_; }  // [teacher dim, student dim], learnt
  // Sum over pairs of weight * mean over the rows named; hidden: as Trace has it. Nothing flows back to the teacher.
  Tensor operator()(const std::vector<Tensor>& teacher, const std::vector<Tensor>& student, const Tensor& rows) const;

 private:
  std::vector<HiddenPair> pairs_;
  std::vector<Tensor> projections_;
};

}  // namespace hadal::train
