// The router: scores -> selection -> weights.
#pragma once
#include "core/mat.h"
#include "model/config.h"
#include "ops/ops.h"

namespace hadal {

// `logits` [rows, experts], overwritten. `bias` [experts] is added for the selection only; null: none. Equal scores go to the lower expert.
// Sources: DeepSeek-V2 modeling_deepseek.py, MoEGate; DeepSeek-V3 inference/model.py, Gate.
void choose_experts(Route& route, Mat<float> logits, const MoeConfig& config, const float* bias);

}  // namespace hadal
