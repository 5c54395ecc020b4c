// The forward pass as plain torch algebra: differentiable, and the specification that the engine's is compared with.
// Start reading at forward() in forward.cpp.
#pragma once
#include "train/torch.h"

#include <functional>
#include <vector>

#include "model/params.h"

namespace hadal::train {

// Segment recurrence (Transformer-XL, arXiv 1901.02860): what earlier segments left, detached. Of each layer the rows that attention keeps:
// gqa: keys rotated and values [batch, kept, kv_heads, head_dim]; mla: latents [batch, kept, kv_rank] and rotated keys [.., rope_dim].
struct Memory {
  int64_t rows = 0;                     // at most so many are kept, beside the first `sinks`
  int64_t sinks = 0;                    // of the very first segment
  int64_t position = 0;                 // of the next segment's first token
  std::vector<int64_t> positions = {};  // of the kept rows
  struct Layer {
    Tensor keys, values, index_keys;
  };
  std::vector<Layer> layers = {};
};

struct Routing {          // what one layer's router decided; rows: batch * time
  Tensor logits;          // float32 [rows, experts]
  Tensor scores;          // softmax or sigmoid of them
  Tensor expert;          // int64 [rows, active]
  Tensor weight;          // float32 [rows, active], with the factor of the config in it
  int64_t sequences = 1;  // that the rows are of, one after the other, all equally long
};

struct Trace {                               // what a caller wants to know beside the result; null: nothing
  std::vector<Routing>* routings = nullptr;  // of every MoE layer, detached
  std::vector<Tensor>* hidden = nullptr;     // the residual stream behind every layer [batch, time, dim]
};

enum class Path { algebra, kernels };  // the same result: spelt out in torch's operations, or by our own (ops.h)

struct Ranks;  // ranks.h

struct Pass {
  const ModelConfig& config;
  Path path = Path::kernels;
  bool recompute = false;    // blocks keep only their input and run again on the way back
  Memory* memory = nullptr;  // read, and replaced by what this segment leaves; null: segments are alone
  // A loss of one layer's routing, already weighed; its gradient joins that of whatever loss is taken of the result. Empty: none.
  std::function<Tensor(const Routing&, int64_t layer)> balance = {};
  double indexer_weight = 0;  // of the divergence of each indexer's choice from the attention it stands for
  Trace trace = {};
  const Ranks* divided = nullptr;  // that the experts are divided among, a part on each; null: all are here
};

// tokens: int64 [batch, time]. The residual stream is float32; products are in the type of the matrices (weights.h, cast).
// Returns what leaves the last layer, before the final norm [batch, time, dim].
Tensor forward(const Params<Tensor>& params, const Tensor& tokens, const Pass& pass);
Tensor logits_of(const Params<Tensor>& params, const Tensor& x, const Pass& pass);  // behind the final norm [.., vocab], float32

// The draft layer's stream, before its norm, for the token after the next (DeepSeek-V3, 2.2): x[:, :-1] joined with the embedding of
// tokens[:, 1:].
Tensor draft_forward(const Params<Tensor>& params, const Tensor& x, const Tensor& tokens, const Pass& pass);

}  // namespace hadal::train
