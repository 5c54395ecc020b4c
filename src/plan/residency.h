// What of a model stays in memory when only so much is granted, and how fast it will then run.
#pragma once
#include <cstdint>

#include "core/dtype.h"
#include "plan/machine.h"

namespace hadal {

struct Model;

struct Residency {
  int64_t fixed = 0;    // bytes: weights but for the routed experts, what is derived from them, the program itself
  int64_t cache = 0;    // keys and values
  int64_t scratch = 0;  // activations
  int64_t arena = 0;    // slots of routed experts
  int64_t slots = 0;
  bool streams = false;  // not every routed expert has a slot
  double hit_rate = 1;   // of experts asked for, when all are asked for alike
  int64_t bytes() const { return fixed + cache + scratch + arena; }
};

// Divides `budget` bytes. Error: too few even with the smallest arena; says the least that works.
Residency fit(const Model& model, int64_t budget, DType cache, int64_t cache_rows, int64_t max_rows);

// Of one token of one sequence at `depth`. disk: bytes per second.
double seconds_per_token(const Model& model, const Residency& residency, const Machine& machine, double disk, DType cache, double depth);

}  // namespace hadal
