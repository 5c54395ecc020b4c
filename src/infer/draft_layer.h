// The checkpoint's own draft layer: it guesses the token after the next one, from what the model thought and the token that came of it.
#pragma once
#include "infer/forward.h"

namespace hadal {

// Reads the hidden states that the last forward() on `scratch` left there: row hidden[r] of that pass goes with token r of `batch`, which
// is the token that follows it, at the same position. Appends to the draft layer's own keys and values, which must be there for every
// earlier position; returns logits [wanted, vocab] of the tokens after those, valid until the next call. The model must have been loaded
// with config.load_draft. Source: DeepSeek-V3, 2.2; hidden states behind the model's last norm, as vLLM and SGLang run the published layer.
Mat<float> forward_draft(const Model& model, const Batch& batch, std::span<const int32_t> hidden, KvCache& kv, Scratch& scratch);

}  // namespace hadal
