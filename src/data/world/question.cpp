#include "data/world/question.h"

#include <algorithm>

#include "core/error.h"

namespace hadal::world {
namespace {

using R = Relation;

std::vector<Composition> list_compositions() {
  std::vector<Composition> all;
  const auto add = [&](Type type, Shape shape, std::vector<R> relations, std::vector<R> held_out) {
    for (const R r : relations) all.push_back({type, shape, r, r, false});
    for (const R r : held_out) all.push_back({type, shape, r, r, true});
  };
  add(Type::lookup, Shape::value, {R::city, R::job, R::born, R::mother, R::father, R::teacher, R::owner, R::container, R::room, R::price},
      {});
  add(Type::lookup, Shape::subject, {R::city, R::born, R::mother, R::teacher, R::owner, R::container}, {R::job, R::room, R::price});
  const auto chain = [&](R first, std::vector<R> relations, std::vector<R> held_out) {
    for (const R r : relations) all.push_back({Type::two_hop, Shape::chain, first, r, false});
    for (const R r : held_out) all.push_back({Type::two_hop, Shape::chain, first, r, true});
  };
  chain(R::mother, {R::city, R::born, R::teacher}, {R::job});
  chain(R::father, {R::job, R::born, R::teacher}, {R::city});
  chain(R::teacher, {R::city, R::job, R::mother, R::teacher}, {R::born, R::father});
  chain(R::owner, {R::city, R::job, R::born, R::father}, {R::mother, R::teacher});
  chain(R::container, {R::room}, {});
  add(Type::compare, Shape::more, {R::born, R::price}, {});
  add(Type::compare, Shape::less, {R::born}, {R::price});
  add(Type::compare, Shape::most, {R::price}, {R::born});
  add(Type::compare, Shape::least, {R::born, R::price}, {});
  add(Type::count, Shape::count, {R::city, R::teacher, R::container, R::room}, {R::job, R::owner});
  add(Type::arithmetic, Shape::sum, {R::price}, {});
  add(Type::arithmetic, Shape::difference, {R::price}, {R::born});
  add(Type::arithmetic, Shape::age, {R::born}, {});
  add(Type::arithmetic, Shape::twice, {R::price}, {});
  add(Type::negation, Shape::which_not, {R::city, R::owner, R::container, R::room}, {R::job});
  add(Type::negation, Shape::is_not, {R::city, R::job, R::owner, R::room}, {R::container});
  return all;
}

// Born earlier is older: what "more" means is the smaller year.
bool is_more(R relation, int32_t x, int32_t y) { return relation == R::born ? x < y : x > y; }

class Drawing {  // of one question
 public:
  Drawing(Dice& dice, const World& world, const Composition& c) : dice_(dice), world_(world), of_first_(world.of(c.first)) {
    dice_.shuffle(of_first_);
    query_ = {c.type, c.shape, c.first, c.second};
  }

  std::optional<Item> item(bool unanswerable, int64_t facts) {
    if (of_first_.size() < 2 || !choose()) return {};
    if (unanswerable) lose_one();
    return Item{document(facts), query_, answer_};
  }
  std::optional<Item> item_about(const std::vector<Fact>& told, bool unanswerable) {
    if (of_first_.size() < 2 || !choose()) return {};
    const auto is_told = [&](const Fact& fact) { return std::find(told.begin(), told.end(), fact) != told.end(); };
    if (!unanswerable && std::any_of(forbidden_.begin(), forbidden_.end(), is_told)) return {};
    if (unanswerable) {
      const auto of_a = [&](const Fact& f) { return f.subject == query_.a && subject_kind(f.relation) == subject_kind(query_.first); };
      if (std::all_of(needed_.begin(), needed_.end(), is_told) || std::none_of(told.begin(), told.end(), of_a)) return {};
      query_.type = Type::unanswerable;
      answer_ = {Answer::unknown};
    }
    return Item{told, query_, answer_};
  }

 private:
  bool choose() {
    switch (query_.shape) {
      case Shape::value:
        return choose_value();
      case Shape::subject:
        return choose_subject();
      case Shape::chain:
        return choose_chain();
      case Shape::more:
      case Shape::less:
        return choose_of_two();
      case Shape::most:
      case Shape::least:
        return choose_extreme();
      case Shape::count:
        return choose_count();
      case Shape::sum:
      case Shape::difference:
      case Shape::age:
      case Shape::twice:
        return choose_arithmetic();
      case Shape::which_not:
        return choose_which_not();
      case Shape::is_not:
        return choose_is_not();
    }
    return false;
  }
  static Answer subject_of(const Fact& fact) { return {Answer::name, subject_kind(fact.relation), fact.subject}; }
  static Answer value_of(const Fact& fact) {
    const Kind kind = value_kind(fact.relation);
    return {kind == Kind::year || kind == Kind::price ? Answer::number : Answer::name, kind, fact.value};
  }
  static Answer number(int32_t value) { return {Answer::number, Kind::price, value}; }

  bool choose_value() {
    needed_ = {of_first_[0]};
    query_.a = of_first_[0].subject;
    answer_ = value_of(of_first_[0]);
    return true;
  }
  bool choose_subject() {
    const Fact& fact = of_first_[0];
    needed_ = {fact};
    for (const Fact& other : of_first_)
      if (other.value == fact.value && other != fact) forbidden_.push_back(other);
    query_.value = fact.value;
    answer_ = subject_of(fact);
    return true;
  }
  bool choose_chain() {
    for (const Fact& fact : of_first_)
      for (const Fact& next : world_.of(query_.second)) {
        const bool circle = subject_kind(fact.relation) == value_kind(next.relation) && next.value == fact.subject;
        if (next.subject != fact.value || circle) continue;
        needed_ = {fact, next};
        query_.a = fact.subject;
        answer_ = value_of(next);
        return true;
      }
    return false;
  }
  // The second of two facts with other values, behind of_first_[0].
  const Fact* different() const {
    for (const Fact& fact : of_first_)
      if (fact.value != of_first_[0].value) return &fact;
    return nullptr;
  }
  bool choose_of_two() {
    const Fact &x = of_first_[0], *y = different();
    if (!y) return false;
    needed_ = {x, *y};
    query_.a = x.subject, query_.b = y->subject;
    const bool first = is_more(query_.first, x.value, y->value) == (query_.shape == Shape::more);
    answer_ = subject_of(first ? x : *y);
    return true;
  }
  // All that the document will say about the relation: `count` facts.
  void tell_only(size_t count) {
    for (size_t i = 0; i < of_first_.size(); ++i) (i < count ? needed_ : forbidden_).push_back(of_first_[i]);
  }
  bool choose_extreme() {
    tell_only(3 + dice_.below(2));
    const auto before = [&](const Fact& x, const Fact& y) {
      return query_.shape == Shape::most ? is_more(query_.first, x.value, y.value) : is_more(query_.first, y.value, x.value);
    };
    const Fact best = *std::min_element(needed_.begin(), needed_.end(), before);
    answer_ = subject_of(best);
    return std::count_if(needed_.begin(), needed_.end(), [&](const Fact& f) { return f.value == best.value; }) == 1;
  }
  bool choose_count() {
    tell_only(3 + dice_.below(4));
    query_.value = needed_[0].value;
    answer_ = number(int32_t(std::count_if(needed_.begin(), needed_.end(), [&](const Fact& f) { return f.value == query_.value; })));
    return true;
  }
  bool choose_arithmetic() {
    Fact x = of_first_[0];
    query_.a = x.subject;
    if (query_.shape == Shape::twice || query_.shape == Shape::age) {
      needed_ = {x};
      query_.value = query_.shape == Shape::age ? 2000 + 10 * int32_t(dice_.below(3)) : 0;
      answer_ = number(query_.shape == Shape::age ? query_.value - x.value : 2 * x.value);
      return true;
    }
    const Fact* other = different();
    if (!other) return false;
    Fact y = *other;
    if (query_.shape == Shape::difference && !is_more(query_.first, x.value, y.value)) std::swap(x, y);
    needed_ = {x, y};
    query_.a = x.subject, query_.b = y.subject;
    answer_ = number(query_.shape == Shape::sum ? x.value + y.value : std::abs(x.value - y.value));
    return true;
  }
  bool choose_which_not() {
    const Fact &x = of_first_[0], *y = different();
    if (!y) return false;
    needed_ = {x, *y};
    query_.value = x.value;
    query_.a = x.subject, query_.b = y->subject;
    if (dice_.below(2) == 0) std::swap(query_.a, query_.b);
    answer_ = subject_of(*y);
    return true;
  }
  bool choose_is_not() {
    const Fact &x = of_first_[0], *y = different();
    if (!y) return false;
    const bool is_not = dice_.below(2) == 0;
    needed_ = {x, *y};
    query_.a = x.subject;
    query_.value = is_not ? y->value : x.value;
    answer_ = {is_not ? Answer::yes : Answer::no};
    return true;
  }

  // One fact that the answer needs is not told; something else about its subject is.
  void lose_one() {
    const size_t lost = dice_.below(needed_.size());
    const Fact fact = needed_[lost];
    needed_.erase(needed_.begin() + std::ptrdiff_t(lost));
    forbidden_.push_back(fact);
    for (const Fact& other : world_.facts)
      if (other != fact && other.subject == fact.subject && subject_kind(other.relation) == subject_kind(fact.relation)) {
        if (std::find(needed_.begin(), needed_.end(), other) == needed_.end()) needed_.push_back(other);
        break;
      }
    query_.type = Type::unanswerable;
    answer_ = {Answer::unknown};
  }

  // What is needed, rivals of the same relations, and others: the question alone says what matters.
  std::vector<Fact> document(int64_t facts) {
    std::vector<Fact> told = needed_;
    const size_t size = std::max(needed_.size(), facts > 0 ? size_t(facts) : 7 + dice_.below(4));
    const auto tell = [&](std::vector<Fact> from, size_t most) {
      dice_.shuffle(from);
      for (const Fact& fact : from) {
        if (told.size() >= size || most == 0) return;
        const auto in = [&](const std::vector<Fact>& list) { return std::find(list.begin(), list.end(), fact) != list.end(); };
        if (in(told) || in(forbidden_)) continue;
        told.push_back(fact);
        --most;
      }
    };
    tell(of_first_, 2 + dice_.below(2));
    if (query_.second != query_.first) tell(world_.of(query_.second), 2);
    tell(world_.facts, size);
    dice_.shuffle(told);
    return told;
  }

  Dice& dice_;
  const World& world_;
  std::vector<Fact> of_first_;  // in random order
  Query query_{};
  Answer answer_{Answer::unknown};
  std::vector<Fact> needed_, forbidden_;
};

bool can_lack_a_fact(Shape shape) {
  return shape == Shape::value || shape == Shape::chain || shape == Shape::more || shape == Shape::less || shape == Shape::sum ||
         shape == Shape::difference || shape == Shape::age;
}

std::vector<const Composition*> fitting(const Wanted& wanted) {
  std::vector<const Composition*> found;
  for (const Composition& c : compositions()) {
    const bool of_type = wanted.type == Type::unanswerable ? can_lack_a_fact(c.shape) : c.type == wanted.type;
    const bool of_relations = wanted.relations[size_t(c.first)] && wanted.relations[size_t(c.second)];
    if (of_type && of_relations && c.held_out == wanted.held_out) found.push_back(&c);
  }
  return found;
}

const Composition& draw_composition(Dice& dice, const Wanted& wanted) {
  const std::vector<const Composition*> from = fitting(wanted);
  CHECK(!from.empty());
  return *dice.pick(from);
}

}  // namespace

const std::vector<Composition>& compositions() {
  static const std::vector<Composition> all = list_compositions();
  return all;
}

bool can_be_asked(const Wanted& wanted) { return !fitting(wanted).empty(); }

std::optional<Item> draw_question(Dice& dice, const World& world, const Wanted& wanted, int64_t facts) {
  return Drawing(dice, world, draw_composition(dice, wanted)).item(wanted.type == Type::unanswerable, facts);
}

std::optional<Item> draw_question_about(Dice& dice, const World& world, const std::vector<Fact>& told, const Wanted& wanted) {
  const bool unanswerable = wanted.type == Type::unanswerable;
  const World known{told};
  return Drawing(dice, unanswerable ? world : known, draw_composition(dice, wanted)).item_about(told, unanswerable);
}

}  // namespace hadal::world
