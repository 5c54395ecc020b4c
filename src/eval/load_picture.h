// A picture of how a mixture's experts are used.
#pragma once
#include <string>
#include <vector>

#include "eval/expert_load.h"

namespace hadal {

// A heat map as SVG: a line per layer, a square per expert, white at the mean load, red above, blue below, full colour at twice and at
// none. Beside each line stand the spread and its floor.
std::string load_picture(const std::vector<LayerLoad>& layers, const std::string& title);

}  // namespace hadal
