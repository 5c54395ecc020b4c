// Matrix products: how they are cut into tasks, and the bytes that packed weights want to read.
#include <algorithm>

#include "core/pool.h"
#include "ops/ops.h"
#include "ops/products.h"

namespace hadal {
namespace {

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A task is a block of columns of `out`, which are rows of the weight. Few rows of x: the weights stream from memory once, and a task is
// worth handing out from 64 KB of them. Many rows: the task's weights stay in the L2 cache while the rows of x pass by; the more rows,
// the more it costs that x passes once per task.
struct Split {
  int64_t rows, cols;  // of `out`, per task
};
Split split_of(int64_t m, int64_t n, int64_t row_bytes, int64_t threads) {
  constexpr int64_t few = 8, many = 96, tile = 8;
  const int64_t bytes = m <= few ? 64 << 10 : m <= many ? 256 << 10 : 768 << 10;
  int64_t tasks = std::max<int64_t>(1, n * row_bytes / bytes);
  if (n * row_bytes > 32 << 10) tasks = divide_up(tasks, threads) * threads;  // a small one is left whole
  const int64_t cols = divide_up(divide_up(n, tasks), tile) * tile;
  const bool enough_tasks = divide_up(n, cols) >= 2 * threads;
  return {m <= many || enough_tasks ? m : many, cols};
}

// Packed weights. Few rows: as above, in whole panels, an even number of them for the kernel's two streams. Many rows: two panels are
// unpacked into the L2 cache and all rows pass over them.
Split split_of_packed(int64_t m, int64_t n, int64_t panel_bytes, int64_t threads) {
  constexpr int64_t few = 8, bytes = 128 << 10, many = 96;
  const int64_t panels = divide_up(n, panel_rows);
  if (m <= few) return {m, std::max<int64_t>(2, bytes / panel_bytes / 2 * 2) * panel_rows};
  const int64_t cols = (panels >= 32 * threads ? 4 : 2) * panel_rows;
  return {divide_up(n, cols) >= 2 * threads ? m : std::min(m, many), cols};
}

struct Part {  // a product and where its tasks begin
  const Product* product;
  Split split;
  int64_t down, first_task;
};

}  // namespace

Input Input::rows_from(int64_t first, int64_t count) const {
  Input part = Mat<const float>{x.data ? x.row(first) : nullptr, count, x.cols, x.stride};  // who has codes may have nothing else
  if (codes.data) {
    part.codes = codes.rows_from(first, count);
    part.scale = scale + first;
  }
  return part;
}

Input quantize(Mat<const float> x, CodeRoom& room) {
  const int64_t width = padded_cols(x.cols);
  if (int64_t(room.codes.size()) < x.rows * width) room.codes.resize(size_t(x.rows * width));
  if (int64_t(room.scale.size()) < x.rows) room.scale.resize(size_t(x.rows));
  const int64_t together = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, x.cols));
  pool().run(divide_up(x.rows, together), [&](int64_t task) {
    for (int64_t r = task * together; r < std::min(x.rows, (task + 1) * together); ++r)
      room.scale[size_t(r)] = codes_of_row(room.codes.data() + r * width, x.row(r), x.cols, width);
  });
  Input in = x;
  in.codes = {room.codes.data(), x.rows, width, width};
  in.scale = room.scale.data();
  return in;
}

Input input_for(std::initializer_list<Product> readers, Mat<const float> x, CodeRoom& room) {
  for (const Product& p : readers)
    if (is_packed(p.w.dtype)) return quantize(x, room);
  return x;
}

void matmul(std::initializer_list<Product> products, const Input& in) {
  std::vector<Part> parts;
  int64_t tasks = 0;
  for (const Product& p : products) {
    const Weight& w = p.w;
    CHECK(p.out.rows == in.x.rows && p.out.cols == w.rows && in.x.cols == w.cols);
    CHECK(!is_packed(w.dtype) || in.codes.data);
    if (p.out.rows == 0 || p.out.cols == 0) continue;
    const int64_t threads = pool().threads();
    const Split split = is_packed(w.dtype) ? split_of_packed(p.out.rows, p.out.cols, panel_bytes(w.dtype, w.cols), threads)
                                           : split_of(p.out.rows, p.out.cols, bytes_of(w.dtype, w.cols), threads);
    const int64_t down = divide_up(p.out.rows, split.rows);
    parts.push_back({&p, split, down, tasks});
    tasks += divide_up(p.out.cols, split.cols) * down;
  }
  pool().run(tasks, [&](int64_t task) {
    auto part = parts.begin();
    while (part + 1 != parts.end() && (part + 1)->first_task <= task) ++part;
    const int64_t t = task - part->first_task, r = t % part->down * part->split.rows, c = t / part->down * part->split.cols;
    const Mat<float>& out = part->product->out;
    const int64_t rows = std::min(part->split.rows, out.rows - r), cols = std::min(part->split.cols, out.cols - c);
    multiply(out.rows_from(r, rows).cols_from(c, cols), in.rows_from(r, rows), part->product->w.rows_from(c, cols));
  });
}

void matmul(Mat<float> out, const Input& in, const Weight& w) { matmul({{out, w}}, in); }

}  // namespace hadal
