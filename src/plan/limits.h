// The least that a forward pass must read from memory and compute, and what that allows on a machine.
#pragma once
#include <array>
#include <cstdint>

#include "core/dtype.h"
#include "infer/profile.h"
#include "plan/machine.h"

namespace hadal {

struct Model;

struct Work {
  double bytes = 0;                       // read from memory
  double float_ops = 0, integer_ops = 0;  // multiply and add counted as two
  Work& operator+=(const Work& other);
};

struct PassShape {  // sequences that are all alike
  int64_t sequences = 1, rows = 1;
  double depth = 0;    // rows of each in the cache before
  int64_t wanted = 1;  // logits, of all sequences together
  double experts = 0;  // routed experts read in each layer that has them; 0: as many as rows that choose at random need
};

using PhaseWork = std::array<Work, phases>;

// Every weight that the rows need is read once (of the experts those chosen, of the embedding table the rows' own), and the cached rows of
// each sequence once. Norms, rope, activations and sampling are not counted: they stay in the caches.
PhaseWork work_of(const Model& model, DType cache, const PassShape& shape);
Work sum(const PhaseWork& work);

// What the scarcest of bandwidth and arithmetic allows, as measured on `machine` with all threads.
double least_seconds(const Machine& machine, const Work& work);

}  // namespace hadal
