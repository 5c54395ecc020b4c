// The routed experts of one layer. Rows are sorted by expert once; gate and up of a block of hidden columns are one task, then down,
// then each row adds up its own experts in ascending order.
#include <algorithm>
#include <utility>
#include <vector>

#include "core/pool.h"
#include "ops/ops.h"
#include "ops/products.h"

namespace hadal {
namespace {

struct Rows {  // of one expert: [first, first + count) of the sorted pairs
  int32_t expert;
  int64_t first, count;
};

struct Group {  // an expert at hand and its rows
  ExpertWeights weights;
  int64_t first, rows;
};

// Fills slot[pair], the place of each (row, expert) pair when pairs are sorted by expert, rows in order.
std::vector<Rows> sort_by_expert(const Route& route, std::vector<int32_t>& slot) {
  const int32_t experts = *std::max_element(route.expert.begin(), route.expert.end()) + 1;
  std::vector<int64_t> next(size_t(experts), 0);  // first the number of rows, then the next free slot
  for (const int32_t e : route.expert) ++next[size_t(e)];
  std::vector<Rows> groups;
  int64_t first = 0;
  for (int32_t e = 0; e < experts; ++e) {
    const int64_t rows = std::exchange(next[size_t(e)], first);
    if (rows > 0) groups.push_back({e, first, rows});
    first += rows;
  }
  slot.resize(route.expert.size());
  for (size_t pair = 0; pair < route.expert.size(); ++pair) slot[pair] = int32_t(next[size_t(route.expert[pair])]++);
  return groups;
}

struct Block {  // columns [first, first + count) of a group's product
  const Group* group;
  int64_t first, count;
};

std::vector<Block> cut(const std::vector<Group>& groups, int64_t columns, int64_t inner) {
  const int64_t width = std::clamp<int64_t>((64 << 10) / std::max<int64_t>(inner, 1), 16, std::max<int64_t>(columns, 16));
  std::vector<Block> blocks;
  for (const Group& group : groups)
    for (int64_t first = 0; first < columns; first += width) blocks.push_back({&group, first, std::min(width, columns - first)});
  return blocks;
}

void multiply(float* out, const float* x, const Weight& w, const Block& block, int64_t columns) {
  const Weight part = w.rows_from(block.first, block.count);
  const Group& group = *block.group;
  constexpr int64_t step = 64;  // rows of x that stay in L2 while the block's weights are read
  for (int64_t row = 0; row < group.rows; row += step)
    gemm_for(w.dtype)({.c = out + (group.first + row) * columns + block.first,
                       .a = x + (group.first + row) * w.cols,
                       .b = part.data,
                       .m = std::min(step, group.rows - row),
                       .n = block.count,
                       .k = w.cols,
                       .lda = w.cols,
                       .ldb = w.cols,
                       .ldc = columns});
}

void grow(std::vector<float>& v, int64_t count) {
  if (int64_t(v.size()) < count) v.resize(size_t(count));
}

// Of each group: y = down(silu(gate x) * up x), rows in place.
void apply(const std::vector<Group>& groups, int64_t pairs, int64_t dim, ExpertScratch& s) {
  const int64_t hidden = groups[0].weights.gate.rows;
  grow(s.gate, pairs * hidden), grow(s.up, pairs * hidden);
  const std::vector<Block> hidden_blocks = cut(groups, hidden, dim), out_blocks = cut(groups, dim, hidden);
  pool().run(int64_t(hidden_blocks.size()), [&](int64_t task) {
    const Block& block = hidden_blocks[size_t(task)];
    const ExpertWeights& w = block.group->weights;
    multiply(s.gate.data(), s.x.data(), w.gate, block, hidden);
    multiply(s.up.data(), s.x.data(), w.up, block, hidden);
    for (int64_t row = block.group->first; row < block.group->first + block.group->rows; ++row)
      kernels().silu_mul(s.gate.data() + row * hidden + block.first, s.up.data() + row * hidden + block.first, block.count);
  });
  pool().run(int64_t(out_blocks.size()), [&](int64_t task) {
    const Block& block = out_blocks[size_t(task)];
    multiply(s.y.data(), s.gate.data(), block.group->weights.down, block, dim);
  });
}

}  // namespace

void experts(Mat<float> out, Mat<const float> x, const Route& route, ExpertSource& source, ExpertScratch& s) {
  if (x.rows == 0) return;
  const std::vector<Rows> wanted = sort_by_expert(route, s.slot);
  const int64_t pairs = int64_t(route.expert.size()), dim = x.cols;
  std::vector<int32_t> ids;
  for (const Rows& rows : wanted) ids.push_back(rows.expert);
  source.begin(ids);
  grow(s.x, pairs * dim), grow(s.y, pairs * dim);
  pool().run(x.rows, [&](int64_t row) {
    for (int64_t i = row * route.active; i < (row + 1) * route.active; ++i)
      std::copy_n(x.row(row), dim, s.x.data() + s.slot[size_t(i)] * dim);
  });
  for (auto ready = source.next(); !ready.empty(); ready = source.next()) {
    std::vector<Group> groups;
    for (const ReadyExpert& r : ready) {
      const Rows& rows = *std::ranges::lower_bound(wanted, r.expert, {}, &Rows::expert);
      groups.push_back({r.weights, rows.first, rows.count});
    }
    apply(groups, pairs, dim, s);
  }
  pool().run(x.rows, [&](int64_t row) {
    for (int64_t i = row * route.active; i < (row + 1) * route.active; ++i)
      kernels().add_scaled(out.row(row), s.y.data() + s.slot[size_t(i)] * dim, route.weight[size_t(i)], dim);
  });
}

}  // namespace hadal
