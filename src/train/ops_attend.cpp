// Attention without ever holding its scores.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "train/ops.h"
#include "train/ops_common.h"

namespace hadal::train::ops {
namespace {

template <class T>
Heads<T> heads(const Tensor& t) {
  return {data<std::remove_const_t<T>>(t), t.stride(0), t.stride(1), t.stride(2)};
}

Tensor dense_rows(const Tensor& t) { return t.stride(3) == 1 || t.size(3) == 1 ? t : t.contiguous(); }

constexpr int64_t block_keys = 64;

template <class T>
AttentionArgs<T> args_of(const Tensor& q, const Tensor& k, double scale, const FlashMask& mask) {
  AttentionArgs<T> args{};
  args.q = heads<const T>(q), args.k = heads<const T>(k);
  args.batches = q.size(0), args.queries = q.size(1), args.keys = k.size(1), args.heads = q.size(2), args.kv_heads = k.size(2);
  args.dim = q.size(3);
  args.query_offset = mask.query_offset;
  args.scale = Wide<T>(scale);
  args.mask = {.window = mask.window, .sinks = mask.sinks};
  if (mask.selected.defined()) {
    args.mask.selected = reinterpret_cast<const uint64_t*>(mask.selected.data_ptr<int64_t>());
    args.mask.selected_heads = mask.selected.size(1);
  }
  return args;
}

struct Attend : torch::autograd::Function<Attend> {
  template <class T>
  static AttentionArgs<T> with_values(AttentionArgs<T> args, const Tensor& v, const Tensor& out, const Tensor& lse) {
    args.v = heads<const T>(v), args.out = heads<T>(out), args.lse = data<Wide<T>>(lse);
    args.value_dim = v.size(3);
    return args;
  }

  static Tensor forward(Context* context, const Tensor& q_, const Tensor& k_, const Tensor& v_, double scale, const FlashMask& mask) {
    const Tensor q = dense_rows(q_), k = dense_rows(k_), v = dense_rows(v_);
    const Tensor out = torch::empty({q.size(0), q.size(1), q.size(2), v.size(3)}, q.options());
    const Tensor lse = torch::empty({q.size(0), q.size(2), q.size(1)}, q.options().dtype(wide_type(q)));
    with_type(q, [&](auto zero) {
      using T = decltype(zero);
      const auto& kernels = training_kernels().of<T>();
      const auto args = with_values(args_of<T>(q, k, scale, mask), v, out, lse);
      run_tasks(args.tasks(), kernels.attention_scratch(args),
                [&](int64_t task, void* scratch) { kernels.attention(args, task, scratch); });
    });
    context->save_for_backward({q, k, v, out, lse, mask.selected});
    context->saved_data["scale"] = scale;
    context->saved_data["mask"] = std::vector<int64_t>{mask.window, mask.sinks, mask.query_offset};
    return out;
  }

  static Tensors backward(Context* context, Tensors gradients) {
    const Tensors s = context->get_saved_variables();
    const std::vector<int64_t> m = context->saved_data["mask"].toIntVector();
    const Tensor dout = dense_rows(gradients[0]);
    const Tensor dq = torch::empty_like(s[0], torch::MemoryFormat::Contiguous),
                 dk = torch::empty_like(s[1], torch::MemoryFormat::Contiguous),
                 dv = torch::empty_like(s[2], torch::MemoryFormat::Contiguous);
    with_type(s[0], [&](auto zero) {
      using T = decltype(zero);
      const auto& kernels = training_kernels().of<T>();
      const AttentionGradArgs<T> args{
          .forward =
              with_values(args_of<T>(s[0], s[1], context->saved_data["scale"].toDouble(), {m[0], m[1], m[2], s[5]}), s[2], s[3], s[4]),
          .dout = heads<const T>(dout),
          .dq = heads<T>(dq),
          .dk = heads<T>(dk),
          .dv = heads<T>(dv)};
      run_tasks(args.forward.tasks(), kernels.attention_backward_scratch(args.forward),
                [&](int64_t task, void* scratch) { kernels.attention_backward(args, task, scratch); });
    });
    return {dq, dk, dv, Tensor(), Tensor()};
  }
};

// All keys of the `count` best blocks: words[block]. best is written to.
void choose(auto* best, int64_t blocks, int64_t own, int64_t count, int64_t* words) {
  for (const int64_t always : {int64_t(0), own - 1, own})
    if (always >= 0 && always < blocks && std::isfinite(best[always])) best[always] = INFINITY;
  thread_local std::vector<int64_t> order;
  order.resize(size_t(blocks));
  std::iota(order.begin(), order.end(), 0);
  std::nth_element(order.begin(), order.begin() + count - 1, order.end(),
                   [&](int64_t x, int64_t y) { return best[x] != best[y] ? best[x] > best[y] : x > y; });
  for (int64_t i = 0; i < count; ++i) words[order[size_t(i)]] = -1;
}

}  // namespace

Tensor selected_words(const Tensor& seen) {
  const Tensor rows = seen.contiguous();
  const int64_t keys = rows.size(3), blocks = (keys + block_keys - 1) / block_keys;
  const Tensor words = torch::empty({rows.size(0), rows.size(1), rows.size(2), blocks}, torch::kLong);
  const bool* from = rows.data_ptr<bool>();
  int64_t* to = words.data_ptr<int64_t>();
  run_rows(words.numel() / std::max<int64_t>(1, blocks), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row)
      for (int64_t block = 0; block < blocks; ++block) {
        uint64_t word = 0;
        const bool* key = from + row * keys + block * block_keys;
        for (int64_t i = 0; i < std::min(block_keys, keys - block * block_keys); ++i) word |= uint64_t(key[i]) << i;
        to[row * blocks + block] = int64_t(word);
      }
  });
  return words;
}

Tensor choose_blocks(const Tensor& q_, const Tensor& k_, double scale, const FlashMask& mask, int64_t count) {
  const Tensor q = dense_rows(q_.detach()), k = dense_rows(k_.detach());
  const int64_t queries = q.size(1), blocks = (k.size(1) + block_keys - 1) / block_keys;
  const Tensor best = torch::empty({q.size(0), k.size(2), queries, blocks}, q.options().dtype(wide_type(q)));
  if (blocks <= count) return torch::full(best.sizes(), -1, torch::kLong);
  const Tensor words = torch::zeros(best.sizes(), torch::kLong);
  with_type(q, [&](auto zero) {
    using T = decltype(zero);
    const auto& kernels = training_kernels().of<T>();
    const auto args = args_of<T>(q, k, scale, mask);
    auto* scores = data<Wide<T>>(best);
    run_tasks(args.tasks(), kernels.block_scores_scratch(args),
              [&](int64_t task, void* scratch) { kernels.block_scores(args, scores, task, scratch); });
    run_rows(best.numel() / blocks, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row)
        choose(scores + row * blocks, blocks, (mask.query_offset + row % queries) / block_keys, count,
               words.data_ptr<int64_t>() + row * blocks);
    });
  });
  return words;
}

Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const FlashMask& mask) {
  return Attend::apply(q, k, v, scale, mask);
}

}  // namespace hadal::train::ops
