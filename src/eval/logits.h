// The logits of a given text: one sequence fed from an empty cache, some rows per pass.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "infer/forward.h"

namespace hadal {

struct FeedOptions {
  DType cache = DType::f16;  // or i8, f32
  int64_t chunk = 512;       // rows of one forward pass
  std::shared_ptr<const Adapter> adapter = {};
};

class Feeder {  // may feed any number of texts, one after the other
 public:
  // Error when there is no memory for `longest` rows of keys and values.
  Feeder(const Model& model, const FeedOptions& options, int64_t longest);

  // Calls visit(row, logits) in order of rows, `logits` being [n, vocab] of rows row .. row + n - 1, until every row of
  // [first, end) was seen. visit may change the logits. Error: no tokens, an id out of range, more tokens than `longest`.
  using Visit = std::function<void(int64_t row, Mat<float> logits)>;
  void run(std::span<const int32_t> tokens, int64_t first, int64_t end, const Visit& visit);

 private:
  const Model& model_;
  int64_t chunk_, longest_;
  std::shared_ptr<const Adapter> adapter_;
  KvCache cache_;
  Scratch scratch_;
};

// Keys and values as f32 when the model's weights are f32, i8 when they are packed, else f16.
DType natural_cache(const Model& model);

// What precedes the values of a two-dimensional float32 array in NumPy's .npy format, version 1.0.
std::string npy_header(int64_t rows, int64_t cols);

}  // namespace hadal
