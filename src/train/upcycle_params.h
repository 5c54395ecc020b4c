// The weights of an upcycled model.
#pragma once
#include "train/upcycle.h"
#include "train/weights.h"

namespace hadal::train {

Params<Tensor> upcycle(const ModelConfig& dense, const Params<Tensor>& params, const Upcycling& how);

}  // namespace hadal::train
