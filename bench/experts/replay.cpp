// Which expert should go when another must come: routes replayed through ExpertCache under every policy, without any weights.
// Routes: a file of them (a line per token and layer: layer, then experts), or made ones of three kinds. Prints how many of the experts
// asked for were in memory.
//   bench_experts [ROUTES]
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "infer/expert_cache.h"

namespace {

using namespace hadal;

struct Visit {  // one token in one layer
  int64_t layer;
  std::vector<int32_t> experts;
};
struct Routes {
  std::string name;
  int64_t layers, experts;
  std::vector<Visit> visits;
};

// skew: of the experts' popularity (Zipf's exponent), an order of its own in each layer. stay: how likely a token keeps an expert of the
// last.
Routes made(const std::string& name, double skew, double stay) {
  constexpr int64_t layers = 16, experts = 128, active = 6, tokens = 2000;
  Routes routes{name, layers, experts, {}};
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> unit;
  std::vector<std::discrete_distribution<int32_t>> popular;
  for (int64_t l = 0; l < layers; ++l) {
    std::vector<double> weight;
    for (int64_t e = 0; e < experts; ++e) weight.push_back(std::pow(double(e + 1), -skew));
    std::shuffle(weight.begin(), weight.end(), random);
    popular.emplace_back(weight.begin(), weight.end());
  }
  std::vector<std::vector<int32_t>> last(layers);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t l = 0; l < layers; ++l) {
      std::vector<int32_t> chosen;
      for (const int32_t e : last[size_t(l)])
        if (unit(random) < stay) chosen.push_back(e);
      while (int64_t(chosen.size()) < active)
        if (const int32_t e = popular[size_t(l)](random); std::ranges::find(chosen, e) == chosen.end()) chosen.push_back(e);
      last[size_t(l)] = chosen;
      routes.visits.push_back({l, chosen});
    }
  return routes;
}

Routes read(const char* path) {
  Routes routes{path, 0, 0, {}};
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    Visit visit{};
    if (!(words >> visit.layer)) continue;
    for (int32_t e; words >> e; routes.experts = std::max<int64_t>(routes.experts, e + 1)) visit.experts.push_back(e);
    routes.layers = std::max(routes.layers, visit.layer + 1);
    routes.visits.push_back(std::move(visit));
  }
  return routes;
}

double hit_rate(const Routes& routes, int64_t slots, Eviction eviction) {
  ExpertCache cache(routes.layers, routes.experts, slots, eviction);
  int64_t asked = 0, hits = 0;
  for (const Visit& visit : routes.visits) {
    std::vector<int32_t> pinned;
    for (const int32_t expert : visit.experts) {
      cache.use(visit.layer, expert);
      int32_t slot = cache.find(visit.layer, expert);
      ++asked;
      hits += slot >= 0;
      if (slot < 0) slot = cache.place(visit.layer, expert);
      cache.pin(slot);
      pinned.push_back(slot);
    }
    for (const int32_t slot : pinned) cache.unpin(slot);
  }
  return double(hits) / double(asked);
}

}  // namespace

int main(int count, char** arguments) {
  std::vector<Routes> all;
  if (count > 1)
    all = {read(arguments[1])};
  else
    all = {made("all alike", 0, 0), made("some popular", 0.8, 0), made("popular, and kept from token to token", 0.8, 0.5)};
  fmt::print("{:<40} {:>7} {:>7} {:>7} {:>12}\n", "routes", "slots", "lru", "lfu", "least stale");
  for (const Routes& routes : all)
    for (const double part : {0.25, 0.5, 0.75}) {
      const int64_t slots = int64_t(part * double(routes.layers * routes.experts));
      const auto rate = [&](Eviction eviction) { return 100 * hit_rate(routes, slots, eviction); };
      fmt::print("{:<40} {:>5.0f} % {:>5.1f} % {:>5.1f} % {:>10.1f} %\n", routes.name, 100 * part, rate(Eviction::lru), rate(Eviction::lfu),
                 rate(Eviction::least_stale));
    }
}
