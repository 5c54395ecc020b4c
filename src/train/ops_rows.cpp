// Operations that treat every row alone.
#include "train/ops.h"
#include "train/ops_common.h"

namespace hadal::train::ops {
namespace {

constexpr int64_t norm_chunk = 256;  // rows whose part of a weight's gradient is added up together, whatever the threads

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static Tensor forward(Context* context, const Tensor& x_, const Tensor& weight, double eps) {
    const Tensor x = x_.contiguous(), out = torch::empty_like(x);
    const int64_t n = x.size(-1), rows = x.numel() / std::max<int64_t>(1, n);
    const Tensor rms = torch::empty({rows}, weight.options());
    with_type(x, [&](auto zero) {
      using T = decltype(zero);
      const RmsNormArgs<T> args{.out = data<T>(out),
                                .x = data<T>(x),
                                .weight = data<Wide<T>>(weight),
                                .rms = data<Wide<T>>(rms),
                                .n = n,
                                .ldx = n,
                                .ldout = n,
                                .eps = Wide<T>(eps)};
      run_rows(rows, [&](int64_t first, int64_t last) { training_kernels().of<T>().rms_norm(args, first, last); });
    });
    context->save_for_backward({x, weight, rms});
    return out;
  }
  static Tensors backward(Context* context, Tensors gradients) {
    const Tensors s = context->get_saved_variables();
    const Tensor dout = gradients[0].contiguous(), dx = torch::empty_like(s[0]);
    const int64_t n = s[0].size(-1), rows = s[2].numel(), chunks = (rows + norm_chunk - 1) / norm_chunk;
    const Tensor parts = torch::zeros({chunks, n}, s[1].options());
    with_type(s[0], [&](auto zero) {
      using T = decltype(zero);
      const RmsNormGradArgs<T> args{.dx = data<T>(dx),
                                    .x = data<T>(s[0]),
                                    .dout = data<T>(dout),
                                    .weight = data<Wide<T>>(s[1]),
                                    .rms = data<Wide<T>>(s[2]),
                                    .n = n,
                                    .ldx = n,
                                    .lddout = n,
                                    .lddx = n};
      run_tasks(chunks, 0, [&](int64_t chunk, void*) {
        training_kernels().of<T>().rms_norm_backward(args, chunk * norm_chunk, std::min(rows, (chunk + 1) * norm_chunk),
                                                     data<Wide<T>>(parts) + chunk * n);
      });
    });
    return {dx, parts.sum(0), Tensor()};
  }
};

struct Swiglu : torch::autograd::Function<Swiglu> {
  static Tensor forward(Context* context, const Tensor& gate_, const Tensor& up_) {
    const Tensor gate = gate_.contiguous(), up = up_.contiguous(), out = torch::empty_like(gate);
    const int64_t n = gate.size(-1), rows = gate.numel() / std::max<int64_t>(1, n);
    with_type(gate, [&](auto zero) {
      using T = decltype(zero);
      const SwigluArgs<T> args{data<T>(out), data<T>(gate), data<T>(up), n, n, n};
      run_rows(rows, [&](int64_t first, int64_t last) { training_kernels().of<T>().swiglu(args, first, last); });
    });
    context->save_for_backward({gate, up});
    return out;
  }
  static Tensors backward(Context* context, Tensors gradients) {
    const Tensors s = context->get_saved_variables();
    return swiglu_backward(s[0], s[1], gradients[0].contiguous());
  }
};

Tensor turned(const Tensor& x_, const Tensor& cos, const Tensor& sin, bool pairs, bool back) {
  const Tensor x = x_.contiguous(), out = 2 * cos.size(1) == x.size(3) ? torch::empty_like(x) : x.clone();
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const int64_t heads = x.size(2), width = x.size(3);
    const RopeArgs<T> args{.out = data<T>(out),
                           .x = data<T>(x),
                           .cos = data<Wide<T>>(cos),
                           .sin = data<Wide<T>>(sin),
                           .times = x.size(1),
                           .heads = heads,
                           .half = cos.size(1),
                           .x_row = heads * width,
                           .x_head = width,
                           .out_row = heads * width,
                           .out_head = width,
                           .pairs = pairs,
                           .back = back};
    run_rows(x.size(0) * x.size(1), [&](int64_t first, int64_t last) { training_kernels().of<T>().rope(args, first, last); });
  });
  return out;
}

struct Rotate : torch::autograd::Function<Rotate> {
  static Tensor forward(Context* context, const Tensor& x, const Tensor& cos, const Tensor& sin, bool pairs) {
    context->save_for_backward({cos, sin});
    context->saved_data["pairs"] = pairs;
    return turned(x, cos, sin, pairs, false);
  }
  static Tensors backward(Context* context, Tensors gradients) {
    const Tensors s = context->get_saved_variables();
    return {turned(gradients[0], s[0], s[1], context->saved_data["pairs"].toBool(), true), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

Tensors swiglu_backward(const Tensor& gate, const Tensor& up, const Tensor& dout) {
  const Tensor dgate = torch::empty_like(gate), dup = torch::empty_like(up);
  const int64_t n = gate.size(-1), rows = gate.numel() / std::max<int64_t>(1, n);
  with_type(gate, [&](auto zero) {
    using T = decltype(zero);
    const SwigluGradArgs<T> args{data<T>(dgate), data<T>(dup), data<T>(gate), data<T>(up), data<T>(dout), n, n, n, n};
    run_rows(rows, [&](int64_t first, int64_t last) { training_kernels().of<T>().swiglu_backward(args, first, last); });
  });
  return {dgate, dup};
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) { return RmsNorm::apply(x, weight, eps); }
Tensor swiglu(const Tensor& gate, const Tensor& up) { return Swiglu::apply(gate, up); }
Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, bool pairs) {
  return Rotate::apply(x, cos.to(wide_type(x)), sin.to(wide_type(x)), pairs);
}

LossTerms LossTerms::of_rows(int64_t first, int64_t end) const {
  const auto cut = [&](const Tensor& t) { return t.defined() ? t.slice(0, first, end) : t; };
  return {cut(targets), cut(target_weight), cut(row_weight), cut(teacher), divergence};
}

double token_loss(const Tensor& logits, const LossTerms& terms) {
  const int64_t rows = logits.size(0), vocab = logits.size(1);
  const Tensor losses = torch::empty({rows, 4}, terms.row_weight.options());
  const TokenLoss& divergence = terms.divergence;
  const double soft = terms.teacher.defined() ? divergence.temperature * divergence.temperature : 0;
  double sum = 0;
  with_type(logits, [&](auto zero) {
    using T = decltype(zero);
    using F = Wide<T>;
    const TokenLossArgs<T> args{.logits = data<T>(logits),
                                .teacher = terms.teacher.defined() ? data<T>(terms.teacher) : nullptr,
                                .target = terms.targets.data_ptr<int64_t>(),
                                .target_weight = terms.target_weight.defined() ? data<F>(terms.target_weight) : nullptr,
                                .row_weight = data<F>(terms.row_weight),
                                .loss = data<F>(losses),
                                .vocab = vocab,
                                .targets = terms.targets.size(1),
                                .ld = vocab,
                                .ld_teacher = vocab,
                                .share = {1, F(soft * divergence.forward), F(soft * divergence.reverse), F(soft * divergence.jsd)},
                                .beta = F(divergence.beta),
                                .temperature = F(divergence.temperature)};
    at::parallel_for(0, rows, 4, [&](int64_t first, int64_t last) { training_kernels().of<T>().token_loss(args, first, last); });
    for (int64_t row = 0; row < rows; ++row)
      for (int i = 0; i < 4; ++i) sum += double(args.row_weight[row]) * double(args.share[i]) * double(args.loss[row * 4 + i]);
  });
  return sum;
}

}  // namespace hadal::train::ops
