// AVX-512 (F, BW, VL, DQ): a tile of training's products is 6 rows by 4 vectors; bf16 is taken apart into floats.
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
#include "kernels/vector/losses.inc.h"
#include "kernels/vector/training_rows.inc.h"

template <class T>
TrainingKernels<T> all() {
  return {.attention = attention<T>,
          .attention_backward = attention_backward<T>,
          .attention_scratch = attention_scratch<T>,
          .attention_backward_scratch = attention_backward_scratch<T>,
          .block_scores = block_scores<T>,
          .block_scores_scratch = block_scores_scratch<T>,
          .pack = pack<UnitsOf<T>>,
          .grouped = grouped<T>,
          .grouped_outer = grouped_outer<T>,
          .grouped_scratch = grouped_scratch<T>,
          .grouped_outer_scratch = grouped_outer_scratch<T>,
          .gather_choices = gather_choices<T>,
          .spread_choices = spread_choices<T>,
          .weigh_choices = weigh_choices<T>,
          .token_loss = token_loss<T>,
          .rms_norm = rms_norm<T>,
          .rms_norm_backward = rms_norm_backward<T>,
          .swiglu = swiglu<T>,
          .swiglu_backward = swiglu_backward<T>,
          .rope = rope<T>,
          .product_peak = product_peak<UnitsOf<T>>};
}

}  // namespace

void fill_avx512_training(TrainingTable& t) { t.f32 = all<float>(), t.bf16 = all<uint16_t>(); }

}  // namespace hadal
