// Frequencies of the rotary embedding. Powers are taken in double and rounded, the rest follows PyTorch's single precision step by
// step: at position 100,000 one unit in the last place of a frequency is already a hundredth of a radian.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "core/error.h"
#include "model/config.h"

namespace hadal {
namespace {

// Wavelengths longer than original/low are stretched by factor, shorter than original/high are kept, between them interpolated.
void scale_as_llama3(const RopeConfig& rope, std::vector<float>& frequencies) {
  const float original = float(rope.original_context), low = rope.low_frequency, high = rope.high_frequency;
  const float longest = float(double(rope.original_context) / double(low)), shortest = float(double(rope.original_context) / double(high));
  for (float& f : frequencies) {
    const float wavelength = float(2 * std::numbers::pi) / f;
    if (wavelength < shortest) continue;
    if (wavelength > longest) {
      f /= rope.factor;
      continue;
    }
    const float smooth = (original / wavelength - low) / (high - low);
    f = (1 - smooth) * f / rope.factor + smooth * f;
  }
}

// arXiv 2309.00071, section 3.2: pairs that turn more than beta_fast times over the original context keep their frequency, those that
// turn less than beta_slow times are stretched by factor, a ramp between them.
void scale_as_yarn(const RopeConfig& rope, int64_t dim, std::vector<float>& frequencies) {
  const auto pair_turning = [&](double turns) {
    return double(dim) * std::log(double(rope.original_context) / (turns * 2 * std::numbers::pi)) / (2 * std::log(double(rope.theta)));
  };
  const double low = std::max(std::floor(pair_turning(rope.beta_fast)), 0.0);
  double high = std::min(std::ceil(pair_turning(rope.beta_slow)), double(dim - 1));
  if (low == high) high += 0.001;
  for (int64_t i = 0; i < int64_t(frequencies.size()); ++i) {
    const float power = float(std::pow(double(rope.theta), double(float(2 * i) / float(dim))));
    const float ramp = std::clamp((float(i) - float(low)) / float(high - low), 0.0f, 1.0f), kept = 1 - ramp;
    frequencies[size_t(i)] = 1.0f / (rope.factor * power) * (1 - kept) + 1.0f / power * kept;
  }
}

}  // namespace

std::vector<float> rope_frequencies(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  const int64_t dim = config.rotated_dim();
  CHECK(dim >= 0 && dim % 2 == 0);
  std::vector<float> frequencies(size_t(dim / 2));
  for (int64_t i = 0; i < dim / 2; ++i)
    frequencies[size_t(i)] = 1.0f / float(std::pow(double(rope.theta), double(float(2 * i) / float(dim))));
  switch (rope.scaling) {
    case RopeScaling::none:
      break;
    case RopeScaling::linear:
      for (float& f : frequencies) f /= rope.factor;
      break;
    case RopeScaling::llama3:
      scale_as_llama3(rope, frequencies);
      break;
    case RopeScaling::yarn:
      scale_as_yarn(rope, dim, frequencies);
      break;
    case RopeScaling::table:
      CHECK(rope.divisors.size() == frequencies.size());
      std::ranges::transform(frequencies, rope.divisors, frequencies.begin(), std::divides<>());
      break;
  }
  return frequencies;
}

}  // namespace hadal
