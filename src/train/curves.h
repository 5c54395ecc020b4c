// The curves of a run as a picture.
#pragma once
#include <filesystem>

namespace hadal::train {

// Loss and evaluation over steps, learning rate below: an SVG of what log.csv holds. Nothing where the log has no two steps.
void draw_curves(const std::filesystem::path& log, const std::filesystem::path& picture);

}  // namespace hadal::train
