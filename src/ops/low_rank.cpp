// What adapters add to products. A row's sums are taken in one order whatever rows are beside it.
#include <algorithm>

#include "core/error.h"
#include "core/pool.h"
#include "kernels/kernels.h"
#include "ops/ops.h"

namespace hadal {
namespace {

struct Piece {  // some rows of one addition: they pass over its `down` while that is in the cache
  const Addition* of;
  int64_t first, rows;
  int64_t at;  // of x down^T [rows, rank]
};

struct Strip {  // and columns of its `up`
  const Piece* of;
  int64_t first, cols;
};

}  // namespace

void add_low_rank(std::span<const Addition> additions, std::vector<float>& room) {
  constexpr int64_t most_rows = 32, most_cols = 1024;
  std::vector<Piece> pieces;
  int64_t floats = 0;
  for (const Addition& a : additions) {
    CHECK(a.out.rows == a.x.rows && a.x.cols == a.w.down.cols && a.out.cols == a.w.up.cols && a.w.down.rows == a.w.up.rows);
    if (!a.w) continue;
    for (int64_t first = 0; first < a.x.rows; first += most_rows) {
      pieces.push_back({&a, first, std::min(most_rows, a.x.rows - first), floats});
      floats += pieces.back().rows * a.w.down.rows;
    }
  }
  if (pieces.empty()) return;
  std::vector<Strip> strips;
  for (const Piece& p : pieces)
    for (int64_t first = 0; first < p.of->out.cols; first += most_cols)
      strips.push_back({&p, first, std::min(most_cols, p.of->out.cols - first)});
  if (int64_t(room.size()) < floats) room.resize(size_t(floats));
  pool().run(int64_t(pieces.size()), [&](int64_t task) {
    const Piece& p = pieces[size_t(task)];
    const Mat<const float>&x = p.of->x, &down = p.of->w.down;
    kernels().gemm_f32_f32({.c = room.data() + p.at,
                            .a = x.row(p.first),
                            .b = down.data,
                            .m = p.rows,
                            .n = down.rows,
                            .k = down.cols,
                            .lda = x.stride,
                            .ldb = down.stride,
                            .ldc = down.rows});
  });
  pool().run(int64_t(strips.size()), [&](int64_t task) {
    const Strip& s = strips[size_t(task)];
    const Addition& a = *s.of->of;
    kernels().mix_f32_f32({.out = a.out.row(s.of->first) + s.first,
                           .p = room.data() + s.of->at,
                           .v = a.w.up.data + s.first,
                           .m = s.of->rows,
                           .n = s.cols,
                           .k = a.w.up.rows,
                           .ldp = a.w.up.rows,
                           .ldv = a.w.up.stride,
                           .ldout = a.out.stride});
  });
}

}  // namespace hadal
