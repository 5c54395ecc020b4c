#include "data/world/world.h"

#include <algorithm>

namespace hadal::world {
namespace {

constexpr uint64_t salt = 0x776f726c64;  // which half a fact belongs to never changes with a seed
constexpr size_t elders = 4, young = 4;  // two women and two men who can be parents, and their children
constexpr size_t pool_size = 3;          // so few cities, jobs, teachers, owners in a world: some are shared

// `count` different numbers of [first, end).
std::vector<int32_t> draw_some(Dice& dice, int32_t first, int32_t end, size_t count) {
  std::vector<int32_t> drawn;
  while (drawn.size() < count) {
    const int32_t number = first + int32_t(dice.below(size_t(end - first)));
    if (std::find(drawn.begin(), drawn.end(), number) == drawn.end()) drawn.push_back(number);
  }
  return drawn;
}

class Builder {
 public:
  Builder(Dice& dice, bool unseen) : dice_(dice), unseen_(unseen) {}

  World build() {
    std::vector<int32_t> mothers = draw_some(dice_, 0, women, elders / 2), fathers = draw_some(dice_, women, people, elders / 2);
    std::vector<int32_t> all = mothers;
    all.insert(all.end(), fathers.begin(), fathers.end());
    while (all.size() < elders + young) {
      const int32_t child = int32_t(dice_.below(people));
      if (std::find(all.begin(), all.end(), child) != all.end()) continue;
      all.push_back(child);
      add(Relation::mother, child, mothers);
      add(Relation::father, child, fathers);
    }
    tell_of_people(all);
    tell_of_things(all);
    return std::move(world_);
  }

 private:
  // One of `values` that belongs to this half, if there is one.
  void add(Relation relation, int32_t subject, const std::vector<int32_t>& values) {
    const size_t start = dice_.below(values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      const Fact fact{relation, subject, values[(start + i) % values.size()]};
      const bool itself = subject_kind(relation) == value_kind(relation) && fact.subject == fact.value;
      if (itself || is_unseen(fact) != unseen_) continue;
      world_.facts.push_back(fact);
      return;
    }
  }
  void add_between(Relation relation, int32_t subject, int32_t first, int32_t last) {
    Fact fact{relation, subject, 0};
    do fact.value = first + int32_t(dice_.below(size_t(last - first + 1)));
    while (is_unseen(fact) != unseen_);
    world_.facts.push_back(fact);
  }
  void tell_of_people(const std::vector<int32_t>& all) {
    const auto homes = draw_some(dice_, 0, cities, pool_size), work = draw_some(dice_, 0, jobs, pool_size);
    std::vector<int32_t> teachers = all;
    dice_.shuffle(teachers);
    teachers.resize(pool_size);
    for (size_t i = 0; i < all.size(); ++i) {
      add(Relation::city, all[i], homes);
      add(Relation::job, all[i], work);
      add(Relation::teacher, all[i], teachers);
      if (i < elders) add_between(Relation::born, all[i], 1940, 1959);
      if (i >= elders) add_between(Relation::born, all[i], 1965, 1989);
    }
  }
  void tell_of_things(std::vector<int32_t> owners) {
    dice_.shuffle(owners);
    owners.resize(pool_size);
    const auto boxes = draw_some(dice_, 0, containers, 3), house = draw_some(dice_, 0, rooms, 3);
    for (const int32_t box : boxes) add(Relation::room, box, house);
    for (const int32_t thing : draw_some(dice_, 0, things, 5)) {
      add(Relation::owner, thing, owners);
      add(Relation::container, thing, boxes);
      add_between(Relation::price, thing, 2, 20);
    }
  }

  Dice& dice_;
  bool unseen_;
  World world_;
};

}  // namespace

bool is_unseen(const Fact& fact) {
  const uint64_t packed = uint64_t(fact.relation) << 48 | uint64_t(uint32_t(fact.subject)) << 24 | uint64_t(uint32_t(fact.value));
  return (mix_bits(packed ^ salt << 52) & 1) != 0;
}

std::vector<Fact> World::of(Relation relation) const {
  std::vector<Fact> found;
  for (const Fact& fact : facts)
    if (fact.relation == relation) found.push_back(fact);
  return found;
}

World draw_world(Dice& dice, bool unseen) { return Builder(dice, unseen).build(); }

}  // namespace hadal::world
