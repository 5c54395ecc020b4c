// How the operations meet the kernels: types, rows, tasks and scratch memory of threads.
#pragma once
#include <ATen/Parallel.h>

#include <vector>

#include "core/error.h"
#include "kernels/training.h"
#include "train/torch.h"

namespace hadal::train::ops {

// f(T{}) with the kernels' type of the tensor's numbers.
template <class F>
auto with_type(const Tensor& t, F f) {
  if (t.scalar_type() == torch::kDouble) return f(double{});
  if (t.scalar_type() == torch::kBFloat16) return f(uint16_t{});
  CHECK(t.scalar_type() == torch::kFloat);
  return f(float{});
}

template <class T>
T* data(const Tensor& t) {
  CHECK(t.element_size() == int64_t(sizeof(T)));
  return static_cast<T*>(t.data_ptr());
}

inline torch::ScalarType wide_type(const Tensor& t) { return t.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat; }

// f(task, scratch) for every task; scratch is the thread's own.
template <class F>
void run_tasks(int64_t tasks, int64_t scratch_bytes, F f) {
  at::parallel_for(0, tasks, 1, [&](int64_t first, int64_t last) {
    thread_local std::vector<std::byte> bytes;
    if (int64_t(bytes.size()) < scratch_bytes + 64) bytes.resize(size_t(scratch_bytes + 64));
    void* scratch = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(bytes.data()) + 63) / 64 * 64);
    for (int64_t task = first; task < last; ++task) f(task, scratch);
  });
}

template <class F>
void run_rows(int64_t rows, F f) {  // f(first, last)
  at::parallel_for(0, rows, 64, f);
}

using Context = torch::autograd::AutogradContext;
using Tensors = torch::autograd::variable_list;

Tensors swiglu_backward(const Tensor& gate, const Tensor& up, const Tensor& dout);  // gradients of gate and up; all dense

}  // namespace hadal::train::ops
