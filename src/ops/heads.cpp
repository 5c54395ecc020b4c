// Products with one small matrix per head (MLA's two halves of kv_up), as one phase instead of one per head.
#include <algorithm>

#include "core/pool.h"
#include "ops/ops.h"
#include "ops/products.h"

namespace hadal {

void matmul_heads(const HeadProducts& p) {
  constexpr int64_t block = 64;  // rows of x per task: they stay in L2 with the head's matrix
  const int64_t blocks = (p.x.rows + block - 1) / block;
  const auto gemm = gemm_for(p.w.dtype);
  pool().run(p.heads * blocks, [&](int64_t task) {
    const int64_t head = task / blocks, first = task % blocks * block;
    const Weight w = p.w.rows_from(p.first_row + head * p.row_step, p.rows_per_head);
    gemm({.c = p.out.row(first) + head * p.out_step,
          .a = p.x.row(first) + head * p.x_step,
          .b = w.data,
          .m = std::min(block, p.x.rows - first),
          .n = p.rows_per_head,
          .k = w.cols,
          .lda = p.x.stride,
          .ldb = w.cols,
          .ldc = p.out.stride});
  });
}

}  // namespace hadal
