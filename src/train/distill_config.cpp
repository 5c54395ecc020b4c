#include "train/distill_config.h"

#include <cmath>
#include <utility>

#include "core/error.h"

namespace hadal::train {

void TokenLoss::check() const {
  const auto need = [](bool good, const char* name, double value, const char* expected) {
    if (!good) throw Error("distill.{} is {}: expected {}", name, value, expected);
  };
  for (const auto& [name, share] : {std::pair{"hard", hard}, {"forward", forward}, {"reverse", reverse}, {"jsd", jsd}})
    need(share >= 0 && std::isfinite(share), name, share, "a share, 0 or more");
  need(hard + forward + reverse + jsd > 0, "hard", hard, "a loss with a share above 0");
  need(beta > 0 && beta < 1, "beta", beta, "a number between 0 and 1");
  need(temperature > 0 && std::isfinite(temperature), "temperature", temperature, "more than 0");
}

void DistillConfig::check() const {
  loss.check();
  on_policy_loss.check();
  if (on_policy < 0 || on_policy > 1) throw Error("distill.on_policy is {}: expected a share from 0 to 1", on_policy);
  if (cache.empty()) return;
  if (loss.reverse != 0 || loss.jsd != 0) throw Error("distill.cache holds samples of the teacher: expected forward and hard losses only");
  if (loss.temperature != 1) throw Error("distill.cache holds samples of temperature 1: expected no other, found {}", loss.temperature);
  if (!hidden.empty()) throw Error("distill.cache holds no hidden states: expected it without [[distill.hidden]]");
}

}  // namespace hadal::train
