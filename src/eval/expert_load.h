// How evenly a mixture's experts are used by a text, and the selection biases that make it even.
#pragma once
#include <functional>
#include <span>
#include <vector>

#include "eval/perplexity.h"
#include "model/expert_balance.h"

namespace hadal {

struct LayerLoad {
  int64_t layer = 0;
  std::vector<int64_t> load;  // of each expert the rows that chose it
  LoadFigures figures;
  double batch_violation = 0;  // the largest max / mean - 1 of any 16,384 tokens in a row
};

struct TextLoad {
  std::vector<LayerLoad> layers;  // those with experts
  double loss = 0;                // mean of -ln(probability) of every token behind the first of its window, if asked for
};

struct BalanceOptions {
  int64_t context = 512;      // tokens of a window
  int64_t max_windows = 0;    // 0: all
  bool every_second = false;  // windows 1, 3, 5 ... are left out: others than calibrate_biases reads
  bool loss = false;
  FeedOptions feed = {};
};
using WindowsDone = std::function<void(int64_t done, int64_t all)>;

// The text in windows as measure_perplexity cuts it; only the routers' choices are looked at, unless the loss is asked for.
// Error: no experts, fewer than one window, an id out of range.
TextLoad measure_load(const Model& model, std::span<const int32_t> tokens, std::optional<int32_t> begin, const BalanceOptions& options,
                      const WindowsDone& progress = {});

struct CalibrationOptions {
  int64_t rounds = 3;                          // a layer sees what the layers before it have become: each round reads the text again
  int64_t most_bytes = int64_t(1) << 30;       // of scores held at once: fewer windows where this is not enough
  std::function<void(int64_t round)> started;  // may be empty
};
struct LayerBias {
  int64_t layer;
  std::vector<float> bias;  // [experts]
};
// Biases fitted by quantile balancing (model/expert_balance.h) on windows 1, 3, 5 ... of the text, the weights untouched.
// Error: a router without selection bias.
std::vector<LayerBias> calibrate_biases(const Model& model, std::span<const int32_t> tokens, std::optional<int32_t> begin,
                                        const BalanceOptions& options, const CalibrationOptions& how = {},
                                        const WindowsDone& progress = {});
Model with_biases(const Model& model, const std::vector<LayerBias>& biases);  // sharing all other weights

}  // namespace hadal
