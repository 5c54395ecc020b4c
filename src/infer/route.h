// The router: scores -> selection -> weights.
#pragma once
#include <span>

#include "core/mat.h"
#include "model/config.h"
#include "ops/ops.h"

namespace hadal {

// `logits` [rows, experts], overwritten by the scores. `bias` [experts] is added for the selection only; null: none. Equal scores go to the
// lower expert.
// Sources: DeepSeek-V2 modeling_deepseek.py, MoEGate; DeepSeek-V3 inference/model.py, Gate.
void choose_experts(Route& route, Mat<float> logits, const MoeConfig& config, const float* bias);

// In the layers that config.hash_layers names the experts are those of the row's token (model/hash_route.h), weighed by their scores.
void hash_experts(Route& route, Mat<float> logits, const MoeConfig& config, std::span<const int32_t> tokens, int64_t layer);

}  // namespace hadal
