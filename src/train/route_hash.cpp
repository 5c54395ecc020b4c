// The router that looks at nothing but the token; the scores only weigh what it chose.
#include "train/torch.h"

#include "model/hash_route.h"
#include "train/parts.h"

namespace hadal::train {

Routing hash_experts(const Tensor& logits, const MoeConfig& c, const Tensor& tokens, int64_t layer) {
  const Tensor expert = torch::empty({tokens.numel(), c.active}, torch::kLong), ids = tokens.contiguous();
  for (int64_t row = 0; row < ids.numel(); ++row)
    std::ranges::copy(hadal::hash_experts(int32_t(ids.data_ptr<int64_t>()[row]), layer, c.experts, c.active),
                      expert.data_ptr<int64_t>() + row * c.active);
  return weighed(logits, scores_of(logits, c.score), expert, c);
}

}  // namespace hadal::train
