// What every checkpoint fuzzer does with a tensor that it was handed: read it, so that a wrong place or size is seen.
#pragma once
#include <algorithm>
#include <vector>

#include "model/checkpoint.h"

namespace hadal {

inline void read_all(const StoredTensor& tensor) {
  // A stride of 0 makes many values of few bytes: the first and the last are enough then.
  const int64_t step = info_of(tensor.dtype).block_values, count = tensor.count(), run = std::min<int64_t>(count, 1024 * step);
  std::vector<float> values(static_cast<size_t>(run));
  to_f32(tensor, 0, run, values.data());
  to_f32(tensor, count - run, run, values.data());
}

}  // namespace hadal
