// How evenly the experts of one layer are loaded, and the selection biases under which they are loaded evenly.
#pragma once
#include <cstdint>
#include <span>

#include "core/mat.h"
#include "model/config.h"

namespace hadal {

struct LoadFigures {
  int64_t rows = 0;                             // that were routed
  double spread = 0;                            // (max - min) / mean of the experts' loads
  double floor = 0;                             // the spread that a perfectly balanced router would show by chance, on average
  double max_violation = 0, min_violation = 0;  // max / mean - 1 and 1 - min / mean
  double variation = 0;                         // deviation / mean
  double entropy = 0;                           // of the distribution over experts, divided by that of the uniform one
  int64_t dead = 0;                             // experts that no row chose
};

// `load`: how many rows each expert was chosen by, `active` experts a row.
LoadFigures load_figures(std::span<const int64_t> load, int64_t active);

// Expected (max - min) / mean when each of `rows` rows chooses `active` of `experts` independently and evenly.
double spread_floor(int64_t rows, int64_t experts, int64_t active);

struct BiasFit {
  int64_t sweeps = 60;       // at most
  double step = 0.7;         // of the way to each expert's own quantile; all move at once, so 1 would overshoot
  double tolerance = 0.002;  // spread at which to stop
};

// Quantile balancing: `bias` [experts] moves to where every expert is chosen equally often by these rows. For expert e and a row, the
// margin is score + bias less what the row's other experts ask for a place; e is chosen where it is positive. Each sweep moves e's bias by
// the quantile of its margins that leaves it rows * active / experts of them. The bias keeps its mean. `scores` [rows, experts] as the
// selection compares them. Returns the spread over these rows; the least that any sweep has had is what `bias` is left at. Source: the dual
// of the assignment problem (BASE layers, arXiv 2103.16716), solved expert by expert.
double fit_selection_bias(Mat<const float> scores, const MoeConfig& config, std::span<float> bias, const BiasFit& fit = {});

}  // namespace hadal
