// The search. A row has one float scale S; each of its groups of 32 columns an integer scale s and a zero code z. With S given, groups are
// independent: for the few s whose codes span the group's values, or nearly, the zero codes near the best are tried in full. S itself is
// tried in steps around the one whose widest group has the largest s, and at the end set to the least squares fit of what was chosen.
#include "infer/quantize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/pool.h"

namespace hadal {
namespace {

constexpr int64_t longest_row = int64_t(1) << 17;  // 2^17 products of 2^14 and less stay inside an int32

struct Group {  // of a row of w4, w3 or w2
  int scale = 0, zero = 0;
  float error = 0;
};

struct Steps {  // code -> value: step * code - offset, for codes in [low, high]
  float step, offset, low, high;
};

// The codes that keep the integer inside an int8.
Steps steps_of(DType type, float row_scale, int scale, int zero) {
  const int offset = offset_of(type, scale, zero);
  const int low = std::max(0, (offset - 128 + scale - 1) / scale), high = std::min(levels_of(type) - 1, (127 + offset) / scale);
  return {row_scale * float(scale), row_scale * float(offset), float(low), float(high)};
}

float nearest(float x, float inverse, const Steps& s) {
  float v = (x + s.offset) * inverse + 0.5f;
  v = v < s.low + 0.5f ? s.low + 0.5f : v;
  v = v > s.high + 0.5f ? s.high + 0.5f : v;
  return float(int(v));
}

// Squared error of a group under these steps. Sixteen partial sums, so that the compiler may use vectors.
float error_of(const float* x, const float* importance, const Steps& s) {
  const float inverse = 1 / s.step;
  std::array<float, 16> sum{};
  for (int64_t first = 0; first < group_cols; first += 16)
    for (int64_t i = 0; i < 16; ++i) {
      const float d = x[first + i] - (nearest(x[first + i], inverse, s) * s.step - s.offset);
      sum[size_t(i)] += importance[first + i] * d * d;
    }
  float total = 0;
  for (const float v : sum) total += v;
  return total;
}

struct Range {  // of a group's values, zero included
  float low = 0, high = 0;
};

class RowSearch {
 public:
  RowSearch(DType type, std::span<const float> row, const QuantizeOptions& options)
      : type_(type), levels_(float(levels_of(type) - 1)), count_(padded_cols(int64_t(row.size())) / group_cols) {
    x_.resize(size_t(count_ * group_cols));
    importance_.resize(x_.size());
    std::ranges::copy(row, x_.begin());
    for (size_t i = 0; i < row.size(); ++i) importance_[i] = options.importance.empty() ? 1 : options.importance[i];
    ranges_.resize(size_t(count_));
    for (size_t i = 0; i < row.size(); ++i) {
      Range& range = ranges_[i / group_cols];
      range.low = std::min(range.low, row[i]);
      range.high = std::max(range.high, row[i]);
    }
  }

  void run(bool thorough, RowCodes& codes) {
    float widest = 0;
    for (const Range& range : ranges_) widest = std::max(widest, span_of(range));
    std::vector<Group> best(static_cast<size_t>(count_)), tried = best;
    float scale = 0, least = INFINITY;
    constexpr std::array<float, 4> quick{1.f, 0.9f, 0.8f, 0.7f};
    constexpr std::array<float, 14> fine{1.15f, 1.1f, 1.05f, 1.f, 0.95f, 0.9f, 0.86f, 0.82f, 0.78f, 0.74f, 0.7f, 0.66f, 0.6f, 0.5f};
    if (widest > 0)
      for (const float factor : thorough ? std::span<const float>(fine) : quick) {
        const float s = factor * widest / 15;
        const float error = search_groups(s, thorough ? 5 : 3, tried, least);
        if (error >= least) continue;
        least = error, scale = s;
        best.swap(tried);
      }
    write(best, scale, codes);
  }

  // Least squares of values on integers, both weighted by importance.
  SquaredError fit(RowCodes& codes) const {
    std::vector<int8_t> integers(codes.code.size());
    integers_of(type_, codes, integers.data());
    double product = 0, square = 0;
    for (size_t i = 0; i < integers.size(); ++i) {
      product += double(importance_[i]) * double(x_[i]) * integers[i];
      square += double(importance_[i]) * double(integers[i]) * integers[i];
    }
    if (square > 0 && product > 0) codes.scale = float(product / square);
    SquaredError e;
    for (size_t i = 0; i < integers.size(); ++i) {
      if (importance_[i] == 0) continue;
      const double d = double(x_[i]) - double(codes.scale) * integers[i];
      e.error += d * d;
      e.norm += double(x_[i]) * double(x_[i]);
    }
    return e;
  }

 private:
  // The distance between neighbouring codes that a group needs for all its values to lie between the first code and the last.
  float span_of(const Range& r) const {
    const float most_below = 24.f / 32 * (levels_ + 1), most_above = levels_ - 9.f / 32 * (levels_ + 1);  // zero codes 15 and 0
    return std::max({(r.high - r.low) / levels_, -r.low / most_below, r.high / most_above});
  }

  // Returns infinity as soon as the sum of errors exceeds `enough`.
  float search_groups(float row_scale, int scales, std::vector<Group>& groups, float enough) const {
    float sum = 0;
    for (int64_t g = 0; g < count_; ++g) {
      groups[size_t(g)] = search(row_scale, scales, g);
      sum += groups[size_t(g)].error;
      if (sum >= enough) return INFINITY;
    }
    return sum;
  }

  Group search(float row_scale, int scales, int64_t g) const {
    const float *x = x_.data() + g * group_cols, *importance = importance_.data() + g * group_cols;
    const Range range = ranges_[size_t(g)];
    Group best;
    for (int64_t i = 0; i < group_cols; ++i) best.error += importance[i] * x[i] * x[i];  // of all weights zero
    if (best.error == 0) return best;
    const int widest = std::clamp(int(std::ceil(span_of(range) / row_scale)), 1, 15);
    for (int s = widest; s > std::max(0, widest - scales); --s) {
      // The codes centred on the values; in units of codes zero lies at (zero + 9) / 32 of the levels, rounded down to an integer.
      const float zero_at = (levels_ - (range.high + range.low) / (row_scale * float(s))) / 2;
      const float ideal = zero_at * 32 / (levels_ + 1) - 9 + 0.5f / float(s);
      const int from = std::clamp(int(std::floor(ideal)), 0, 14);
      for (int zero = scales > 3 ? std::max(0, from - 1) : from; zero <= (scales > 3 ? std::min(15, from + 2) : from + 1); ++zero) {
        const float error = error_of(x, importance, steps_of(type_, row_scale, s, zero));
        if (error < best.error) best = {s, zero, error};
      }
    }
    return best;
  }

  void write(const std::vector<Group>& groups, float row_scale, RowCodes& codes) const {
    codes.scale = row_scale;
    codes.code.assign(x_.size(), 0);
    codes.groups.assign(size_t(count_), 0);
    for (int64_t g = 0; g < count_; ++g) {
      const Group& group = groups[size_t(g)];
      codes.groups[size_t(g)] = uint8_t(group.scale | group.zero << 4);
      if (group.scale == 0) continue;
      const Steps steps = steps_of(type_, row_scale, group.scale, group.zero);
      for (int64_t i = g * group_cols; i < (g + 1) * group_cols; ++i)
        codes.code[size_t(i)] = uint8_t(nearest(x_[size_t(i)], 1 / steps.step, steps));
    }
  }

  DType type_;
  float levels_;  // the largest code
  int64_t count_;
  std::vector<float> x_, importance_;  // padded with values of no importance
  std::vector<Range> ranges_;
};

// w8: one scale; clipping the largest values a little may pay.
SquaredError choose_bytes(std::span<const float> row, const QuantizeOptions& options, RowCodes& codes) {
  codes.groups.clear();
  codes.code.assign(size_t(padded_cols(int64_t(row.size()))), 0);
  codes.scale = 0;
  float largest = 0;
  double norm = 0, least = INFINITY;
  for (const float v : row) {
    largest = std::max(largest, std::abs(v));
    norm += double(v) * double(v);
  }
  const float smallest_scale = 1e-30f;
  if (largest / 127 < smallest_scale) return {norm, norm};
  for (const float factor : {1.f, 0.96f, 0.92f, 0.88f, 0.84f, 0.8f}) {
    const float scale = factor * largest / 127, inverse = 1 / scale;
    std::array<float, 16> sums{};
    for (size_t first = 0; first < row.size(); first += 16)
      for (size_t i = first; i < std::min(row.size(), first + 16); ++i) {
        float v = row[i] * inverse;
        v = v < -127 ? -127 : v > 127 ? 127 : v;
        const float d = row[i] - scale * float(int(v + (v < 0 ? -0.5f : 0.5f)));
        sums[i - first] += (options.importance.empty() ? 1.f : options.importance[i]) * d * d;
      }
    double error = 0;
    for (const float s : sums) error += double(s);
    if (error >= least) break;  // the error has one valley
    least = error, codes.scale = scale;
  }
  double error = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    const float v = std::clamp(row[i] / codes.scale, -127.f, 127.f);
    const int integer = int(v + (v < 0 ? -0.5f : 0.5f));
    codes.code[i] = uint8_t(int8_t(integer));
    const double d = double(row[i]) - double(codes.scale) * integer;
    error += d * d;
  }
  return {error, norm};
}

}  // namespace

double SquaredError::relative() const { return norm > 0 ? std::sqrt(error / norm) : 0; }

SquaredError choose_codes(DType type, std::span<const float> row, const QuantizeOptions& options, RowCodes& codes) {
  CHECK(is_packed(type) && (options.importance.empty() || options.importance.size() == row.size()));
  if (type == DType::w8) return choose_bytes(row, options, codes);
  RowSearch search(type, row, options);
  search.run(options.thorough, codes);
  return search.fit(codes);
}

SquaredError pack_matrix(DType type, int64_t rows, int64_t cols, const ReadRow& read, const PackedMemory& to, const std::string& name,
                         const QuantizeOptions& options) {
  if (cols > longest_row) throw Error("tensor {}: rows of {} values cannot be packed: expected at most {}", name, cols, longest_row);
  const int64_t panels = padded_rows(rows) / panel_rows;
  std::vector<SquaredError> errors(static_cast<size_t>(panels));
  std::vector<int64_t> bad(static_cast<size_t>(panels), -1);
  pool().run(panels, [&](int64_t p) {
    std::byte* panel = to.blocks + p * panel_bytes(type, cols);
    std::memset(panel, 0, size_t(panel_bytes(type, cols)));  // rows of padding are zeros in every type
    std::vector<float> row(static_cast<size_t>(cols));
    std::vector<int8_t> integers(static_cast<size_t>(padded_cols(cols)));
    RowCodes codes;
    for (int64_t r = p * panel_rows; r < (p + 1) * panel_rows; ++r) {
      to.scale[r] = 0, to.sum[r] = 0;
      if (r >= rows) continue;
      read(r, row.data());
      rotate_row(row.data(), cols);
      if (!std::ranges::all_of(row, [](float v) { return std::isfinite(v); })) {
        bad[size_t(p)] = r;
        return;
      }
      errors[size_t(p)] += choose_codes(type, row, options, codes);
      pack_row(type, codes, r % panel_rows, cols, panel);
      to.scale[r] = codes.scale;
      to.sum[r] = integers_of(type, codes, integers.data());
    }
  });
  SquaredError all;
  for (size_t p = 0; p < errors.size(); ++p) {
    if (bad[p] >= 0) throw Error("tensor {}: row {} has a value that is not finite and cannot be packed", name, bad[p]);
    all += errors[p];
  }
  return all;
}

}  // namespace hadal
