// A small world: people, things, containers, and what is true of them. The same facts can be told in any language.
#pragma once
#include <array>
#include <bitset>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "core/random.h"

namespace hadal::world {

class Dice {  // draws that depend on the seed alone
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}
  uint32_t below(size_t n) { return uint32_t((mix_bits(state_++) >> 32) * n >> 32); }  // in [0, n), n < 2^32
  template <class T>
  const T& pick(const std::vector<T>& from) {
    return from[below(from.size())];
  }
  template <class T>
  void shuffle(std::vector<T>& values) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
  }

 private:
  uint64_t state_;
};

enum class Kind : uint8_t { person, city, job, year, thing, container, room, price };
enum class Relation : uint8_t { city, job, born, mother, father, teacher, owner, container, room, price };
constexpr size_t relations = 10;
inline constexpr std::array<std::string_view, relations> relation_names = {"city",    "job",   "born",      "mother", "father",
                                                                           "teacher", "owner", "container", "room",   "price"};
using RelationSet = std::bitset<relations>;
constexpr Kind subject_kind(Relation r) {
  if (r == Relation::owner || r == Relation::container || r == Relation::price) return Kind::thing;
  return r == Relation::room ? Kind::container : Kind::person;
}
constexpr Kind value_kind(Relation r) {
  constexpr std::array kinds = {Kind::city,   Kind::job,    Kind::year,      Kind::person, Kind::person,
                                Kind::person, Kind::person, Kind::container, Kind::room,   Kind::price};
  return kinds[size_t(r)];
}

// How many of each kind every language names. People below `women` are women.
constexpr int32_t women = 40, people = 80, cities = 40, jobs = 24, things = 32, containers = 16, rooms = 16;

struct Fact {  // each subject has at most one value per relation
  Relation relation;
  int32_t subject, value;  // numbers of names; years and prices are themselves
  bool operator==(const Fact&) const = default;
};

// Half of all possible facts are true in worlds for training only, the other half in unseen worlds only: no test repeats a fact.
bool is_unseen(const Fact& fact);

struct World {
  std::vector<Fact> facts;
  std::vector<Fact> of(Relation relation) const;
};
World draw_world(Dice& dice, bool unseen);

}  // namespace hadal::world
