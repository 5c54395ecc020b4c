// Attention without ever holding its scores.
#include "train/ops.h"
#include "train/ops_common.h"

namespace hadal::train::ops {
namespace {

template <class T>
Heads<T> heads(const Tensor& t) {
  return {data<std::remove_const_t<T>>(t), t.stride(0), t.stride(1), t.stride(2)};
}

Tensor dense_rows(const Tensor& t) { return t.stride(3) == 1 || t.size(3) == 1 ? t : t.contiguous(); }

// Bool [.., keys] as words of 64 keys, int64 [.., words].
Tensor as_words(const Tensor& selected) {
  const int64_t keys = selected.size(-1), words = (keys + 63) / 64;
  const Tensor bits = at::constant_pad_nd(selected, {0, words * 64 - keys}).unflatten(-1, {words, 64}).to(torch::kLong);
  return (bits * at::bitwise_left_shift(torch::ones({64}, torch::kLong), torch::arange(64))).sum(-1).contiguous();
}

struct Attend : torch::autograd::Function<Attend> {
  template <class T>
  static AttentionArgs<T> args_of(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                                  const Tensor& words, const FlashMask& mask, double scale) {
    AttentionMask m{.window = mask.window, .sinks = mask.sinks};
    if (words.defined()) {
      m.selected = reinterpret_cast<const uint64_t*>(words.data_ptr<int64_t>());
      m.selected_heads = words.size(1);
    }
    return {.q = heads<const T>(q),
            .k = heads<const T>(k),
            .v = heads<const T>(v),
            .out = heads<T>(out),
            .lse = data<Wide<T>>(lse),
            .batches = q.size(0),
            .queries = q.size(1),
            .keys = k.size(1),
            .heads = q.size(2),
            .kv_heads = k.size(2),
            .dim = q.size(3),
            .value_dim = v.size(3),
            .query_offset = mask.query_offset,
            .scale = Wide<T>(scale),
            .mask = m};
  }

  static Tensor forward(Context* context, const Tensor& q_, const Tensor& k_, const Tensor& v_, double scale, const FlashMask& mask) {
    const Tensor q = dense_rows(q_), k = dense_rows(k_), v = dense_rows(v_);
    const Tensor out = torch::empty({q.size(0), q.size(1), q.size(2), v.size(3)}, q.options());
    const Tensor lse = torch::empty({q.size(0), q.size(2), q.size(1)}, q.options().dtype(wide_type(q)));
    const Tensor words = mask.selected.defined() ? as_words(mask.selected) : Tensor();
    with_type(q, [&](auto zero) {
      using T = decltype(zero);
      const auto& kernels = training_kernels().of<T>();
      const auto args = args_of<T>(q, k, v, out, lse, words, mask, scale);
      run_tasks(args.tasks(), kernels.attention_scratch(args),
                [&](int64_t task, void* scratch) { kernels.attention(args, task, scratch); });
    });
    context->save_for_backward({q, k, v, out, lse, words});
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
          .forward = args_of<T>(s[0], s[1], s[2], s[3], s[4], s[5], {m[0], m[1], m[2]}, context->saved_data["scale"].toDouble()),
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

}  // namespace

Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const FlashMask& mask) {
  return Attend::apply(q, k, v, scale, mask);
}

}  // namespace hadal::train::ops
