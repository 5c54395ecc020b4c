// The learning rate of a step, as a share of the highest.
#pragma once
#include <algorithm>
#include <cmath>
#include <numbers>

#include "train/run_config.h"

namespace hadal::train {

inline double rate_share(const ScheduleConfig& s, int64_t step) {
  if (step < s.warmup) return double(step + 1) / double(s.warmup);
  const double all = double(std::max<int64_t>(1, s.steps - s.warmup)), done = std::min(1., double(step - s.warmup) / all);
  const auto between = [&](double share) { return s.floor + (1 - s.floor) * share; };
  if (s.shape == "cosine") return between((1 + std::cos(std::numbers::pi * done)) / 2);
  if (s.shape == "linear") return between(1 - done);
  const double left = (1 - done) / std::max(s.cooldown, 1e-9);  // trapezoid
  return between(std::min(1., left));
}

}  // namespace hadal::train
