// A short story that happens in a world: somebody buys something, keeps it, and gives it away.
#pragma once
#include <optional>
#include <string>

#include "data/world/language.h"

namespace hadal::world {

// Empty where the world lacks what the story needs: a thing with a price and a place, its container in a room, somebody with home and job.
std::optional<std::string> tell_story(const Language& language, const World& world, Dice& dice);

}  // namespace hadal::world
