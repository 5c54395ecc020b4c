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

// Tasks of about 64 K weights, in whole panels.
std::vector<Block> cut(const std::vector<Group>& groups, int64_t columns, int64_t inner) {
  const int64_t width = std::max<int64_t>(2 * panel_rows, (64 << 10) / std::max<int64_t>(inner, 1) / (2 * panel_rows) * (2 * panel_rows));
  std::vector<Block> blocks;
  for (const Group& group : groups)
    for (int64_t first = 0; first < columns; first += width) blocks.push_back({&group, first, std::min(width, columns - first)});
  return blocks;
}

// Columns of `out` [pairs, columns] for the rows of the block's group.
void multiply(float* out, const Input& in, const Weight& w, const Block& block, int64_t columns) {
  const Weight part = w.rows_from(block.first, block.count);
  const Group& group = *block.group;
  const int64_t step = is_packed(w.dtype) ? group.rows : 64;  // rows of x that stay in L2 while the block's weights are read
  for (int64_t row = group.first; row < group.first + group.rows; row += step) {
    const int64_t rows = std::min(step, group.first + group.rows - row);
    hadal::multiply({out + row * columns + block.first, rows, block.count, columns}, in.rows_from(row, rows), part);
  }
}

template <class T>
void grow(std::vector<T>& v, int64_t count) {
  if (int64_t(v.size()) < count) v.resize(size_t(count));
}

// The rows of x in the order of the pairs, as floats or as bytes, whichever the experts at hand read; gathered once.
class SortedRows {
 public:
  SortedRows(Mat<const float> x, const Route& route, ExpertScratch& s) : x_(x), route_(route), s_(s) {}

  Input read_by(const std::vector<Group>& groups) {
    for (const Group& group : groups) {
      bool& done = is_packed(group.weights.gate.dtype) ? codes_done_ : floats_done_;
      if (!std::exchange(done, true)) is_packed(group.weights.gate.dtype) ? gather_codes() : gather_floats();
    }
    const int64_t pairs = int64_t(route_.expert.size());
    Input in(Mat<const float>{s_.x.data(), pairs, x_.cols, x_.cols});
    const int64_t width = padded_cols(x_.cols);
    if (codes_done_) in.codes = {s_.pair_codes.codes.data(), pairs, width, width};
    in.scale = s_.pair_codes.scale.data();
    return in;
  }

 private:
  template <class F>
  void for_each_pair(F f) {  // f(row of x, place)
    pool().run(x_.rows, [&](int64_t row) {
      for (int64_t i = row * route_.active; i < (row + 1) * route_.active; ++i) f(row, s_.slot[size_t(i)]);
    });
  }

  void gather_floats() {
    grow(s_.x, int64_t(route_.expert.size()) * x_.cols);
    for_each_pair([&](int64_t row, int64_t at) { std::copy_n(x_.row(row), x_.cols, s_.x.data() + at * x_.cols); });
  }

  void gather_codes() {
    const Input in = quantize(x_, s_.x_codes);
    grow(s_.pair_codes.codes, int64_t(route_.expert.size()) * in.codes.cols);
    grow(s_.pair_codes.scale, int64_t(route_.expert.size()));
    for_each_pair([&](int64_t row, int64_t at) {
      std::copy_n(in.codes.row(row), in.codes.cols, s_.pair_codes.codes.data() + at * in.codes.cols);
      s_.pair_codes.scale[size_t(at)] = in.scale[row];
    });
  }

  Mat<const float> x_;
  const Route& route_;
  ExpertScratch& s_;
  bool floats_done_ = false, codes_done_ = false;
};

// The groups' rows of gate, for the product with down.
Input hidden_rows(const std::vector<Group>& groups, Mat<const float> gate, CodeRoom& room) {
  Input in(gate);
  std::vector<int64_t> rows;
  for (const Group& group : groups)
    if (is_packed(group.weights.down.dtype))
      for (int64_t r = group.first; r < group.first + group.rows; ++r) rows.push_back(r);
  if (rows.empty()) return in;
  const int64_t width = padded_cols(gate.cols);
  grow(room.codes, gate.rows * width), grow(room.scale, gate.rows);
  pool().run(int64_t(rows.size()), [&](int64_t i) {
    const int64_t r = rows[size_t(i)];
    room.scale[size_t(r)] = codes_of_row(room.codes.data() + r * width, gate.row(r), gate.cols, width);
  });
  in.codes = {room.codes.data(), gate.rows, width, width};
  in.scale = room.scale.data();
  return in;
}

struct Adapted {  // a place whose row has an adapter for its expert
  int64_t row, at;
  ExpertLowRank w;
};

std::vector<Adapted> adapted_places(const std::vector<Group>& groups, const Route& route, const std::vector<int32_t>& slot,
                                    const ExpertAdapters& adapters) {
  std::vector<Adapted> places;
  if (!adapters) return places;
  for (size_t pair = 0; pair < slot.size(); ++pair) {
    const bool at_hand =
        std::ranges::any_of(groups, [&](const Group& g) { return slot[pair] >= g.first && slot[pair] < g.first + g.rows; });
    if (!at_hand) continue;
    const int64_t row = int64_t(pair) / route.active;
    const ExpertLowRank w = adapters(row, route.expert[pair]);
    if (w.gate || w.up || w.down) places.push_back({row, slot[pair], w});
  }
  return places;
}

// Of each group: y = down(silu(gate x) * up x), rows in place.
void apply(const std::vector<Group>& groups, const Input& x, Mat<const float> rows, const std::vector<Adapted>& adapted, ExpertScratch& s) {
  const int64_t hidden = groups[0].weights.gate.rows, pairs = x.x.rows, dim = rows.cols;
  grow(s.gate, pairs * hidden), grow(s.up, pairs * hidden);
  const std::vector<Block> hidden_blocks = cut(groups, hidden, dim), out_blocks = cut(groups, dim, hidden);
  pool().run(int64_t(hidden_blocks.size()), [&](int64_t task) {
    const Block& block = hidden_blocks[size_t(task)];
    const ExpertWeights& w = block.group->weights;
    multiply(s.gate.data(), x, w.gate, block, hidden);
    multiply(s.up.data(), x, w.up, block, hidden);
    if (!adapted.empty()) return;
    for (int64_t row = block.group->first; row < block.group->first + block.group->rows; ++row)
      kernels().silu_mul(s.gate.data() + row * hidden + block.first, s.up.data() + row * hidden + block.first, block.count);
  });
  const Mat<float> gate{s.gate.data(), pairs, hidden, hidden}, up{s.up.data(), pairs, hidden, hidden}, y{s.y.data(), pairs, dim, dim};
  std::vector<Addition> additions;
  for (const Adapted& a : adapted) {
    if (a.w.gate) additions.push_back({gate.rows_from(a.at, 1), rows.rows_from(a.row, 1), a.w.gate});
    if (a.w.up) additions.push_back({up.rows_from(a.at, 1), rows.rows_from(a.row, 1), a.w.up});
  }
  add_low_rank(additions, s.low);
  if (!adapted.empty())
    for (const Group& group : groups) silu_mul(gate.rows_from(group.first, group.rows), up.rows_from(group.first, group.rows));
  const Input in = hidden_rows(groups, gate, s.hidden_codes);
  pool().run(int64_t(out_blocks.size()), [&](int64_t task) {
    const Block& block = out_blocks[size_t(task)];
    multiply(s.y.data(), in, block.group->weights.down, block, dim);
  });
  additions.clear();
  for (const Adapted& a : adapted)
    if (a.w.down) additions.push_back({y.rows_from(a.at, 1), gate.rows_from(a.at, 1), a.w.down});
  add_low_rank(additions, s.low);
}

}  // namespace

void experts(Mat<float> out, Mat<const float> x, const Route& route, ExpertSource& source, ExpertScratch& s,
             const ExpertAdapters& adapters) {
  if (x.rows == 0) return;
  const std::vector<Rows> wanted = sort_by_expert(route, s.slot);
  std::vector<int32_t> ids(wanted.size());
  std::ranges::transform(wanted, ids.begin(), &Rows::expert);
  source.begin(ids);
  grow(s.y, int64_t(route.expert.size()) * x.cols);
  SortedRows sorted(x, route, s);
  for (auto ready = source.next(); !ready.empty(); ready = source.next()) {
    std::vector<Group> groups;
    for (const ReadyExpert& r : ready) {
      const Rows& rows = *std::ranges::lower_bound(wanted, r.expert, {}, &Rows::expert);
      groups.push_back({r.weights, rows.first, rows.count});
    }
    apply(groups, sorted.read_by(groups), x, adapted_places(groups, route, s.slot, adapters), s);
  }
  pool().run(x.rows, [&](int64_t row) {
    for (int64_t i = row * route.active; i < (row + 1) * route.active; ++i)
      kernels().add_scaled(out.row(row), s.y.data() + s.slot[size_t(i)] * x.cols, route.weight[size_t(i)], x.cols);
  });
}

}  // namespace hadal
