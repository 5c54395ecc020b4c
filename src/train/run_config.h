// One training run as its TOML file says it. docs/training.md explains every key.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "data/source.h"
#include "model/config.h"
#include "train/balance_config.h"
#include "train/distill_config.h"

namespace hadal::train {

struct DataConfig {  // one [[data]]: what some rows of every batch are made of
  SourceConfig source;
  int64_t rows = 0;          // of each batch
  int64_t tokens = 0;        // of the source that are used; 0: all
  bool whole_rows = false;   // no question is cut in two by the end of a row
  double prompt_weight = 0;  // in the loss, of tokens of documents and questions, beside 1 of the answers
};

struct OptimizerConfig {
  std::string kind = "adamw";  // or muon: for matrices, adamw for the rest
  double learning_rate = 1e-3, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double decay = 0.1;  // of matrices and embeddings
  double clip = 1;     // largest norm of all gradients together; 0: any
  double muon_rate = 0.02, muon_momentum = 0.95;
};

struct ScheduleConfig {
  std::string shape = "cosine";  // cosine, linear, or trapezoid: constant, then down over the last `cooldown`
  int64_t steps = 0, warmup = 0;
  double cooldown = 0.2;  // share of the steps
  double floor = 0.1;     // of the learning rate at the end
};

struct TrainConfig {
  std::filesystem::path file, output;  // the TOML file; the folder that the run writes
  uint64_t seed = 1;
  std::string precision = "bf16";  // of products: bf16 or f32
  ModelConfig model;
  std::filesystem::path from, tokenizer;  // a checkpoint to go on from, or empty; the folder of tokenizer.json
  std::vector<DataConfig> data, evaluation;
  int64_t length = 512;       // tokens of a row that are predicted
  int64_t segments = 1;       // rows go on over so many batches, behind a memory
  int64_t memory = 0;         // rows of that memory; only with segments > 1
  int64_t micro_rows = 0;     // rows computed at once; 0: the whole batch
  bool recompute = false;     // blocks run again on the way back: less memory, a third more work
  double draft_weight = 0.3;  // of the draft layer's loss, where the model has one
  double indexer_weight = 1;  // of the indexers' loss, where the model has them
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  BalanceConfig balance;
  DistillConfig distill;
  int64_t evaluate_every = 0, evaluate_batches = 8;  // 0: at the end only
  int64_t save_every = 500, keep = 2;                // training states
  double ema = 0;                                    // of the weights that are written at the end; 0: the last
  DType type = DType::bf16;                          // of the weights that are written

  int64_t rows() const;  // of a batch
};

struct RunOverrides {  // what a command says instead of the file; empty: the file decides
  std::string output;  // folder
  std::string from;    // a folder or name of a model, instead of all of [model]
};

// Error: names the file, the key, what was expected and what was found; unknown keys too. Relative paths are beside the file, the output
// where the program runs.
TrainConfig read_train_config(const std::filesystem::path& file, const RunOverrides& overrides = {});
struct RunData {
  std::vector<DataConfig> train, evaluation;
};
RunData read_data_of(const std::filesystem::path& file);  // its [[data]] and [[evaluation]] alone

}  // namespace hadal::train
