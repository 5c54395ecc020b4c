// Products with one small matrix per head (MLA's two halves of kv_up), as one phase instead of one per head.
#include <algorithm>

#include "core/pool.h"
#include "ops/ops.h"
#include "ops/products.h"

namespace hadal {

void matmul_heads(const HeadProducts& p) {
  constexpr int64_t block = 64;  // rows of x per task: they stay in L2 with the head's matrix
  const int64_t blocks = (p.x.rows + block - 1) / block;
  const bool packed = is_packed(p.w.dtype);
  CHECK(!packed || (p.first_row % panel_rows == 0 && p.row_step % panel_rows == 0));
  // Every head's columns of a row are quantized by themselves; heads that read the same columns share them.
  thread_local std::vector<CodeRoom> rooms;
  std::vector<Input> inputs;
  const int64_t different = p.x_step == 0 ? 1 : p.heads;
  if (packed && int64_t(rooms.size()) < different) rooms.resize(size_t(different));
  for (int64_t head = 0; head < different; ++head) {
    const Mat<const float> x = p.x.cols_from(head * p.x_step, p.w.cols);
    inputs.push_back(packed ? quantize(x, rooms[size_t(head)]) : Input(x));
  }
  pool().run(p.heads * blocks, [&](int64_t task) {
    const int64_t head = task / blocks, first = task % blocks * block;
    const int64_t rows = std::min(block, p.x.rows - first);
    multiply(p.out.rows_from(first, rows).cols_from(head * p.out_step, p.rows_per_head),
             inputs[size_t(p.x_step == 0 ? 0 : head)].rows_from(first, rows),
             p.w.rows_from(p.first_row + head * p.row_step, p.rows_per_head));
  });
}

}  // namespace hadal
