// What a student learns from a teacher, as [distill] of a run file says it; without a word of torch.
#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

namespace hadal::train {

// With q = softmax(student / T), p = softmax(teacher / T), m = beta p + (1 - beta) q, the loss of a token is
//   hard * -log softmax(student)[label] + T^2 (forward KL(p || q) + reverse KL(q || p) + jsd (beta KL(p || m) + (1 - beta) KL(q || m)))
// Sources: Hinton et al. 2015 (T^2), Gu et al. 2023 (reverse), Agarwal et al. 2023 (the generalised Jensen-Shannon divergence).
struct TokenLoss {
  double hard = 0.3, forward = 0.7, reverse = 0, jsd = 0;  // shares
  double beta = 0.5, temperature = 1;
  bool needs_teacher() const { return forward != 0 || reverse != 0 || jsd != 0; }
  void check() const;  // Error names the field that is out of range
};

// States of the residual stream behind two layers, the student's taken into the teacher's width by a learnt matrix.
struct HiddenPair {
  enum class Kind { mse, cosine } kind = Kind::mse;  // mse: both scaled to mean square 1 first; cosine: 1 - cos
  int64_t teacher_layer = 0, student_layer = 0;      // counted from 0
  double weight = 1;
};

struct DistillConfig {
  std::filesystem::path teacher = {};  // empty: no distillation
  TokenLoss loss = {};                 // of the data
  std::filesystem::path cache = {};    // the teacher's predictions are sampled once and read from a file (logit_cache.h)
  std::vector<HiddenPair> hidden = {};
  double on_policy = 0;  // share of the micro-batches whose text is the student's own replies
  TokenLoss on_policy_loss{.hard = 0, .forward = 0, .reverse = 0, .jsd = 1};
  int64_t refresh = 200;  // batches between new replies
  int64_t replies = 256;  // to so many questions of the data each time
  void check() const;     // Error: parts that do not go together
};

}  // namespace hadal::train
