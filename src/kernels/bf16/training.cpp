// AVX-512 BF16: the products of bf16, which multiply pairs, 64 flops an instruction; the rest is as at the level below.
#include "kernels/training.h"

#include <immintrin.h>

namespace hadal {
namespace {

#include "kernels/avx512/vec.inc.h"

#include "kernels/vector/lanes.inc.h"

#include "kernels/avx512/units.inc.h"

#include "kernels/vector/product.inc.h"
#include "kernels/vector/visible.inc.h"

#include "kernels/vector/attention_blocks.inc.h"
#include "kernels/vector/pack.inc.h"

#include "kernels/vector/attention.inc.h"

#include "kernels/vector/attention_backward.inc.h"
#include "kernels/vector/block_scores.inc.h"
#include "kernels/vector/grouped.inc.h"

}  // namespace

void fill_bf16_training(TrainingTable& t) {
  t.bf16.attention = attention<uint16_t>;
  t.bf16.attention_backward = attention_backward<uint16_t>;
  t.bf16.block_scores = block_scores<uint16_t>;
  t.bf16.grouped = grouped<uint16_t>;
  t.bf16.grouped_outer = grouped_outer<uint16_t>;
  t.bf16.product_peak = product_peak<PairUnits>;
}

}  // namespace hadal
