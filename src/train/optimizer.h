// AdamW for everything, or Muon for matrices and AdamW for the rest. Gradients are read from the parameters.
#pragma once
#include <vector>

#include "train/run_config.h"
#include "train/weights.h"

namespace hadal::train {

class Optimizer {
 public:
  Optimizer(std::vector<NamedTensor> params, const OptimizerConfig& config, torch::ScalarType products);  // of Muon: float or bfloat16
  void step(double rate_share);  // a parameter without a gradient stays as it is
  void zero_gradients();
  std::vector<NamedTensor> state();  // tensors that a run which goes on must find again, shared

 private:
  struct Group {  // that one fused call updates
    std::vector<Tensor> params, first, second, steps;
    std::vector<std::string> names;
    double decay = 0;
  };
  struct Momentum {
    std::string name;
    Tensor param, average;
  };
  void step_adam(Group& group, double rate);
  void step_muon(double rate);
  OptimizerConfig config_;
  torch::ScalarType products_;
  Group decayed_, kept_;            // AdamW
  std::vector<Momentum> matrices_;  // Muon
};

double gradient_norm(const std::vector<Tensor>& params);                           // of all together
void clip_gradients(const std::vector<Tensor>& params, double norm, double most);  // by most / norm; most 0: nothing is clipped

// The nearest (semi-)orthogonal matrix, roughly: singular values come to lie between 0.7 and 1.2. x [.., rows, cols].
// Source: Keller Jordan, "Muon: An optimizer for hidden layers", 2024: five steps of a Newton-Schulz iteration with its coefficients.
// Products are computed in the type given; the result is float32.
Tensor orthogonal(const Tensor& x, torch::ScalarType products = torch::kFloat);

}  // namespace hadal::train
