#include "train/balance_config.h"

#include <fmt/ranges.h>

#include "core/error.h"

namespace hadal::train {
namespace {

struct KindName {
  const char* name;
  BalanceKind kind;
};
constexpr KindName kinds[] = {{"none", BalanceKind::none},         {"article", BalanceKind::article}, {"switch", BalanceKind::switch_loss},
                              {"sequence", BalanceKind::sequence}, {"bias", BalanceKind::bias},       {"quantile", BalanceKind::quantile}};

}  // namespace

std::vector<std::string> balance_kinds() {
  std::vector<std::string> names;
  for (const KindName& k : kinds) names.emplace_back(k.name);
  return names;
}

BalanceKind balance_kind(const std::string& name) {
  for (const KindName& k : kinds)
    if (name == k.name) return k.kind;
  throw Error("balance: expected one of {}, found \"{}\"", fmt::join(balance_kinds(), ", "), name);
}

double BalanceConfig::loss_weight() const {
  if (weight) return *weight;
  switch (kind) {
    case BalanceKind::none:
      return 0;
    case BalanceKind::article:
      return 0.1;
    case BalanceKind::switch_loss:
      return 0.01;
    case BalanceKind::sequence:
    case BalanceKind::bias:
    case BalanceKind::quantile:
      return 1e-4;
  }
  return 0;
}

double BalanceConfig::bias_rate() const { return rate.value_or(kind == BalanceKind::quantile ? 0.3 : 0.001); }

}  // namespace hadal::train
