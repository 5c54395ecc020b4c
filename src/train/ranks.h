// Programs that compute parts of every batch, and experts divided among them. What carries tensors from one to another is the caller's:
// torch.distributed in python/hadal/train.py.
#pragma once
#include "train/torch.h"

#include <functional>
#include <vector>

#include "train/forward.h"
#include "train/weights.h"

namespace hadal::train {

struct Ranks {
  using Counts = std::vector<int64_t>;  // of rows, for each rank
  int rank = 0, size = 1;
  std::function<void(std::vector<Tensor>&)> sum;  // over the ranks, in place; empty where size is 1
  // An all-to-all. The first sent[0] rows go to rank 0, the next sent[1] to rank 1, ..; returned: received[0] rows of rank 0, .. Empty:
  // every rank has all experts.
  std::function<Tensor(const Tensor& rows, const Counts& sent, const Counts& received)> exchange = {};
  bool divide_experts() const { return size > 1 && exchange; }
};
void wait_for_all(const Ranks& ranks);
bool any(const Ranks& ranks, bool here);  // the same answer on all ranks

// Of `size` equal parts of each layer's experts this rank keeps its own; the tensors of the others become undefined. Error: they cannot be
// divided.
void keep_own_experts(const ModelConfig& config, Params<Tensor>& params, const Ranks& ranks);

// ops::experts over divided experts: the row of each choice goes to the rank that has its expert and comes back, gradients likewise. A
// rank's experts get their gradients from the rows of all ranks. Every rank calls it, and goes back through it, as often as any other.
// experts: all of a layer, undefined but for this rank's.
Tensor divided_experts(const Tensor& rows, const Routing& routing, const std::vector<Mlp<Tensor>>& experts, const Ranks& ranks);

// Every rank calls them; rank 0 gets the experts of all ranks, and what is kept beside them, under their names.
std::vector<NamedTensor> gather(std::vector<NamedTensor> own, const ModelConfig& config, const Ranks& ranks);
Params<Tensor> gather(const Params<Tensor>& own, const ModelConfig& config, const Ranks& ranks);

}  // namespace hadal::train
