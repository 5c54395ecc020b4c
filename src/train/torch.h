// libtorch, whose macro CHECK makes room for ours.
#pragma once
#pragma push_macro("CHECK")
#undef CHECK
#include <torch/torch.h>
#pragma pop_macro("CHECK")

namespace hadal::train {
using torch::Tensor;
}
