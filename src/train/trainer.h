// The loop that every kind of training shares: data, micro-batches, optimizer, states, evaluation. What is made small is the caller's.
#pragma once
#include <memory>
#include <vector>

#include "data/token_stream.h"
#include "train/balance.h"
#include "train/distill_run.h"
#include "train/forward.h"
#include "train/optimizer.h"
#include "train/ranks.h"
#include "train/run.h"
#include "train/state.h"
#include "train/weights.h"

namespace hadal::train {

struct Examples {          // a micro-batch
  Tensor tokens, targets;  // int64 [rows, length]
  Tensor weights;          // float32 [rows, length]: 1 where the prediction of the target counts
  int64_t batch = 0;       // its number in the run
  int64_t first_row = 0;   // in that batch
};

// The sum of the losses of the rows that count. `params` are cast already; `pass` carries memory, balance and recomputation.
using Objective = std::function<Tensor(const Params<Tensor>& params, const Examples& examples, const Pass& pass)>;
// The sum of the losses of the draft layer, which predicts the token after the next; x: what forward() returned.
Tensor draft_loss(const Params<Tensor>& params, const Tensor& x, const Examples& examples, const Pass& pass);
// Of the next token, and of the one after it where the model has a draft layer.
Objective next_token(const TrainConfig& config);

class Feed {  // rows of every batch out of several sources
 public:
  Feed(const std::vector<DataConfig>& data, const TrainConfig& config, const Encoder& encoder, const Ranks& ranks, const RunHooks& hooks);
  Examples read(int64_t batch, int64_t first_row, int64_t rows) const;
  double counted(int64_t batch) const;  // weights of the whole batch together
  bool starts_text(int64_t batch) const { return batch % segments_ == 0; }
  int64_t rows() const { return rows_; }

 private:
  struct Part {
    TokenStream stream;
    double prompt_weight;
  };
  std::vector<Part> parts_;
  int64_t length_, segments_, rows_ = 0;
  int32_t end_token_;
};

class Trainer {
 public:
  // beside: what is learnt, kept and continued with the parameters, and is no part of the model.
  Trainer(const TrainConfig& config, Objective objective, const RunHooks& hooks = {}, Ranks ranks = {},
          std::vector<NamedTensor> beside = {});
  void resume();  // from the newest state, if there is one
  RunResult run();

  const Params<Tensor>& params() const { return params_; }
  const Encoder& encoder() const { return encoder_; }
  void save_model(const std::filesystem::path& folder) const;  // a checkpoint in published layout; every rank calls it

 private:
  struct Outcome {
    double loss, gradient_norm, counted;  // the last: tokens that the loss is a mean of
  };
  Outcome step(int64_t batch);
  Outcome finish_gradients(Tensor loss, double counted);  // of this rank's rows: over all ranks, and clipped
  double evaluate() const;
  Pass pass_of(Memory* memory) const;
  torch::ScalarType type() const { return config_.precision == "bf16" ? torch::kBFloat16 : torch::kFloat; }
  std::vector<NamedTensor> learning() const;  // parameters, and what is learnt beside them
  std::vector<NamedTensor> state_tensors();
  void save();
  void load(int64_t step);
  bool can_save() const;
  void learn(const Outcome& outcome, double share);
  bool leapt(const Outcome& outcome) const;
  void go_back(double loss);
  void note(const StepReport& report) const;

  TrainConfig config_;
  Objective objective_;
  RunHooks hooks_;
  Ranks ranks_;
  Encoder encoder_;
  Feed feed_;
  std::unique_ptr<Feed> evaluation_;  // null: there is none
  Params<Tensor> params_, average_;   // average_: exponential, empty without
  std::vector<NamedTensor> beside_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Balancer> balancer_;  // null: no experts
  RunState state_;
  int64_t returns_ = 0, furthest_ = 0;  // times it went back, and how far it had come by then
};

void expect_new(const TrainConfig& config, bool resume);  // Error: the output holds another run's states, and no `resume`
// Those of run.h and distill_run.h as one of several programs.
RunResult train(const TrainConfig& config, bool resume, const RunHooks& hooks, Ranks ranks);
RunResult distill(const TrainConfig& config, bool resume, const DistillHooks& hooks, Ranks ranks);

}  // namespace hadal::train
