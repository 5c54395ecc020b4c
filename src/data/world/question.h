// Questions about a world that a document answers: which facts the document tells, what is asked, what the answer is.
#pragma once
#include <optional>
#include <string_view>
#include <vector>

#include "data/world/world.h"

namespace hadal::world {

enum class Type : uint8_t { lookup, two_hop, compare, count, arithmetic, negation, unanswerable };
inline constexpr std::array type_names = {"lookup", "two_hop", "compare", "count", "arithmetic", "negation", "unanswerable"};

enum class Shape : uint8_t {
  value,       // where does a live?
  subject,     // who lives in `value`?
  chain,       // where does the mother of a live?
  more,        // who is older, a or b? what costs more?
  less,        // who is younger, a or b?
  most,        // who is the oldest?
  least,       // who is the youngest?
  count,       // how many live in `value`?
  sum,         // what do a and b cost together?
  difference,  // how much more does a cost than b? how many years older is a than b?
  age,         // how old was a in `value`?
  twice,       // what do two of a cost?
  which_not,   // who does not live in `value`, a or b?
  is_not,      // is it true that a does not live in `value`?
};

struct Composition {  // what a question is made of
  Type type;
  Shape shape;
  Relation first, second;  // second: what is asked of the value of first, in a chain; otherwise the same as first
  bool held_out;           // never asked in training, though each of its parts is
};
const std::vector<Composition>& compositions();  // but those of unanswerable questions, which are others' with a fact missing

struct Query {
  Type type;
  Shape shape;
  Relation first, second;
  int32_t a = 0, b = 0;  // subjects
  int32_t value = 0;
};

struct Answer {
  enum Form : uint8_t { name, number, yes, no, unknown } form;
  Kind kind = Kind::person;  // of a name
  int32_t value = 0;         // of a name or number
  bool operator==(const Answer&) const = default;
};

struct Item {
  std::vector<Fact> facts;  // in the order of the document, 7 to 10 where the world has as many
  Query query;
  Answer answer;
};

struct Wanted {
  Type type;
  bool held_out;          // of those compositions only; otherwise of the others
  RelationSet relations;  // of which both of a composition's are
};
bool can_be_asked(const Wanted& wanted);  // otherwise there is no such composition, and no question may be drawn

// A question about this world; empty where the world has none. facts: that the document tells, unless the question needs more; 0: 7 to 10.
std::optional<Item> draw_question(Dice& dice, const World& world, const Wanted& wanted, int64_t facts = 0);

// A further question about a document of facts of this world; empty where it has none. Unanswerable: it does not tell what it takes.
std::optional<Item> draw_question_about(Dice& dice, const World& world, const std::vector<Fact>& told, const Wanted& wanted);

}  // namespace hadal::world
