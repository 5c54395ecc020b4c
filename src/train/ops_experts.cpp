// Routed experts as products of rows sorted by expert.
#include "train/ops.h"
#include "train/ops_common.h"

namespace hadal::train::ops {
namespace {

struct Sorted {  // choices by expert: choice i is row[i]'s, place[row * active + slot] is where that choice stands
  std::vector<int64_t> offset, row, place;
  int64_t active;
  int64_t choices() const { return int64_t(row.size()); }
  int64_t rows() const { return choices() / active; }
};

Sorted sort_by_expert(const Tensor& expert, int64_t experts) {
  const Tensor dense = expert.contiguous();
  const int64_t* chosen = dense.data_ptr<int64_t>();
  const int64_t all = dense.numel(), active = dense.size(1);
  Sorted s{{}, {}, {}, active};
  s.offset.assign(size_t(experts + 1), 0);
  for (int64_t i = 0; i < all; ++i) ++s.offset[size_t(chosen[i] + 1)];
  for (int64_t e = 0; e < experts; ++e) s.offset[size_t(e + 1)] += s.offset[size_t(e)];
  s.row.resize(size_t(all));
  s.place.resize(size_t(all));
  std::vector<int64_t> next(s.offset.begin(), s.offset.end() - 1);
  for (int64_t i = 0; i < all; ++i) {
    const int64_t at = next[size_t(chosen[i])]++;
    s.row[size_t(at)] = i / active;
    s.place[size_t(i)] = at;
  }
  return s;
}

// Matrices of the experts, ready for c = a w^T (or a w when `transposed`): w is [n, k].
template <class T>
Tensor pack(at::TensorList w, const Tensor& like, bool transposed) {
  const int64_t n = w[0].size(transposed ? 1 : 0), k = w[0].size(transposed ? 0 : 1), each = packed_elements<T>(n, k);
  const Tensor packed = torch::empty({int64_t(w.size()), each}, like.options());
  run_tasks(int64_t(w.size()), 0, [&](int64_t e, void*) {
    training_kernels().of<T>().pack({.out = data<T>(packed) + e * each,
                                     .w = data<Wide<T>>(w[size_t(e)]),
                                     .n = n,
                                     .k = k,
                                     .k_step = transposed ? n : 1,
                                     .n_step = transposed ? 1 : k});
  });
  return packed;
}

// a [rows, k] times every expert's matrix for its choices; gathered: choice i reads row row[i] of a.
template <class T>
Tensor product(const Tensor& a, at::TensorList w, const Sorted& s, bool transposed, bool gathered) {
  const int64_t n = w[0].size(transposed ? 1 : 0), k = a.size(1);
  const Tensor packed = pack<T>(w, a, transposed), c = torch::empty({s.choices(), n}, a.options());
  const GroupedArgs<T> args{.c = data<T>(c),
                            .a = data<T>(a),
                            .w = data<T>(packed),
                            .offset = s.offset.data(),
                            .groups = int64_t(w.size()),
                            .n = n,
                            .k = k,
                            .lda = k,
                            .ldc = n,
                            .row = gathered ? s.row.data() : nullptr};
  const auto& kernels = training_kernels().of<T>();
  run_tasks(args.tasks(), kernels.grouped_scratch(args), [&](int64_t task, void* scratch) { kernels.grouped(args, task, scratch); });
  return c;
}

// Of every expert sum over its choices of a[i]^T b[i]: [experts, m, n], in the wide type.
template <class T>
Tensor outer(const Tensor& a, const Tensor& b, const Sorted& s, bool gathered) {
  const int64_t groups = int64_t(s.offset.size()) - 1, m = a.size(1), n = b.size(1);
  const Tensor c = torch::empty({groups, m, n}, a.options().dtype(wide_type(a)));
  const GroupedOuterArgs<T> args{.c = data<Wide<T>>(c),
                                 .a = data<T>(a),
                                 .b = data<T>(b),
                                 .offset = s.offset.data(),
                                 .groups = groups,
                                 .m = m,
                                 .n = n,
                                 .lda = m,
                                 .ldb = n,
                                 .row = gathered ? s.row.data() : nullptr};
  const auto& kernels = training_kernels().of<T>();
  run_tasks(groups, kernels.grouped_outer_scratch(args), [&](int64_t task, void* scratch) { kernels.grouped_outer(args, task, scratch); });
  return c;
}

template <class T>
ChoicesArgs<T> choices_of(const Tensor& rows, const Tensor& sorted, const Tensor& weight, const Sorted& s) {
  return {.rows = rows.defined() ? data<T>(rows) : nullptr,
          .sorted = data<T>(sorted),
          .place = s.place.data(),
          .weight = weight.defined() ? data<Wide<T>>(weight) : nullptr,
          .active = s.active,
          .n = sorted.size(1)};
}

// out[row] = sum over its choices of weight * y; weight undefined: 1.
template <class T>
Tensor gather_choices(const Tensor& y, const Tensor& weight, const Sorted& s) {
  const Tensor out = torch::empty({s.rows(), y.size(1)}, y.options());
  const ChoicesArgs<T> args = choices_of<T>(out, y, weight, s);
  run_rows(s.rows(), [&](int64_t first, int64_t last) { training_kernels().of<T>().gather_choices(args, first, last); });
  return out;
}

// Of every choice weight * x[row].
template <class T>
Tensor spread_choices(const Tensor& x, const Tensor& weight, const Sorted& s) {
  const Tensor out = torch::empty({s.choices(), x.size(1)}, x.options());
  const ChoicesArgs<T> args = choices_of<T>(x, out, weight, s);
  run_rows(s.rows(), [&](int64_t first, int64_t last) { training_kernels().of<T>().spread_choices(args, first, last); });
  return out;
}

// Of every choice the product of its rows of x and y; then y is weighed in place.
template <class T>
Tensor weigh_choices(const Tensor& x, const Tensor& y, const Tensor& weight, const Sorted& s) {
  const Tensor dots = torch::empty_like(weight);
  const ChoicesArgs<T> args = choices_of<T>({}, y, weight, s);
  run_rows(s.rows(), [&](int64_t first, int64_t last) {
    training_kernels().of<T>().weigh_choices(args, data<T>(x), data<Wide<T>>(dots), first, last);
  });
  return dots;
}

struct Experts : torch::autograd::Function<Experts> {
  static Tensor forward(Context* context, const Tensor& rows_, const Tensor& weight_, const Tensor& expert, at::TensorList gate,
                        at::TensorList up, at::TensorList down) {
    const Tensor rows = rows_.contiguous(), weight = weight_.contiguous();
    const Sorted s = sort_by_expert(expert, int64_t(gate.size()));
    return with_type(rows, [&](auto zero) {
      using T = decltype(zero);
      const Tensor g = product<T>(rows, gate, s, false, true), u = product<T>(rows, up, s, false, true);
      const Tensor y = product<T>(ops::swiglu(g, u), down, s, false, false);
      Tensors saved{rows, weight, expert, g, u};
      for (const at::TensorList list : {gate, up, down}) saved.insert(saved.end(), list.begin(), list.end());
      context->save_for_backward(saved);
      return gather_choices<T>(y, weight, s);
    });
  }

  static Tensors backward(Context* context, Tensors gradients) {
    const Tensors saved = context->get_saved_variables();
    const size_t count = (saved.size() - 5) / 3;
    const Tensor &rows = saved[0], &weight = saved[1], &g = saved[3], &u = saved[4];
    const Tensor dout = gradients[0].contiguous();
    const at::TensorList all(saved), gate = all.slice(5, count), up = all.slice(5 + count, count), down = all.slice(5 + 2 * count, count);
    const Sorted s = sort_by_expert(saved[2], int64_t(count));
    Tensors result(3);
    with_type(rows, [&](auto zero) {
      using T = decltype(zero);
      const Tensor h = ops::swiglu(g, u), dh = product<T>(dout, down, s, true, true);  // but for the weights
      result[1] = weigh_choices<T>(h, dh, weight, s);  // y . dout = h . (down^T dout), so y itself is not needed
      const Tensors through = swiglu_backward(g, u, dh);
      const Tensor &dg = through[0], &du = through[1];
      const Tensor dx = product<T>(dg, gate, s, true, false).add_(product<T>(du, up, s, true, false));
      result[0] = gather_choices<T>(dx, {}, s);
      const Tensor dy = spread_choices<T>(dout, weight, s);
      for (const Tensor& d : {outer<T>(dg, rows, s, true), outer<T>(du, rows, s, true), outer<T>(dy, h, s, false)})
        for (const Tensor& each : d.unbind(0)) result.push_back(each);
    });
    return result;
  }
};

}  // namespace

Tensor experts(const Tensor& rows, const Routing& routing, const std::vector<Mlp<Tensor>>& experts) {
  Tensors gate, up, down;
  for (const Mlp<Tensor>& e : experts) {
    gate.push_back(e.gate);
    up.push_back(e.up);
    down.push_back(e.down);
  }
  return Experts::apply(rows, routing.weight, routing.expert, at::TensorList(gate), at::TensorList(up), at::TensorList(down));
}

}  // namespace hadal::train::ops
