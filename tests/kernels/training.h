// What the tests of the training kernels share: numbers of each type, and how far a level may be from the scalar kernels in double.
#pragma once
#include <algorithm>

#include "kernels/training.h"
#include "levels.h"

namespace hadal {

template <class T>
T number_from(double v) {
  if constexpr (sizeof(T) == 2) return f32_to_bf16(float(v));
  return T(v);
}
template <class T>
double value_of(T v) {
  if constexpr (sizeof(T) == 2) return double(bf16_to_f32(v));
  return double(v);
}

template <class T>
std::vector<T> random_numbers(int64_t n, unsigned seed, double spread = 1) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal(0, spread);
  std::vector<T> values(static_cast<size_t>(n));
  for (T& v : values) v = number_from<T>(normal(engine));
  return values;
}

template <class To, class From>
std::vector<To> converted(const std::vector<From>& from) {
  std::vector<To> to;
  for (const From v : from) to.push_back(number_from<To>(value_of(v)));
  return to;
}

// The largest error, as a share of the largest value of `want` or of `least`; infinite when one of them is not finite or the numbers of
// values differ.
template <class T, class W>
double error_of(const std::vector<T>& got, const std::vector<W>& want, double least = 1e-30) {
  if (got.size() != want.size()) return INFINITY;
  double most = least, error = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isinf(value_of(want[i])) && value_of(got[i]) == value_of(want[i])) continue;
    if (!std::isfinite(value_of(got[i])) || !std::isfinite(value_of(want[i]))) return INFINITY;
    most = std::max(most, std::abs(value_of(want[i])));
    error = std::max(error, std::abs(value_of(got[i]) - value_of(want[i])));
  }
  return error / most;
}

template <class T>
constexpr double tolerance = sizeof(T) == 2   ? 1.2e-2
                             : sizeof(T) == 4 ? 4e-6
                                              : 1e-14;

struct Scratch {  // aligned as the kernels want it
  std::vector<std::byte> bytes;
  void* of(int64_t size) {
    bytes.assign(size_t(size) + 64, std::byte(0xff));  // NaNs: nothing may be read before it is written
    return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(bytes.data()) + 63) / 64 * 64);
  }
};

class TrainingLevel : public testing::TestWithParam<Isa> {
 protected:
  const TrainingTable table = training_kernels_for(GetParam()), reference = training_kernels_for(Isa::scalar);
};

}  // namespace hadal
