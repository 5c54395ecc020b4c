#include "data/world/language.h"

#include <algorithm>

#include "core/error.h"

namespace hadal::world {
namespace {

std::string_view choose(const Forms& forms, Dice& dice, bool other_forms) { return other_forms ? forms[2] : forms[dice.below(2)]; }

std::string noun(const Language& language, Kind kind, int32_t number) {
  const bool has_article = kind == Kind::thing || kind == Kind::container;
  return (has_article ? std::string(language.article) : std::string()) + name_of(language, kind, number);
}

const Forms& question_forms(const Language& l, const Query& q) {
  const size_t r = size_t(q.first), scale = q.first == Relation::born ? 0 : 1;
  switch (q.shape) {
    case Shape::value:
      return l.value[r];
    case Shape::subject:
      return l.subject[r];
    case Shape::chain:
      return l.value[size_t(q.second)];
    case Shape::more:
      return l.more[scale];
    case Shape::less:
      return l.less[scale];
    case Shape::most:
      return l.most[scale];
    case Shape::least:
      return l.least[scale];
    case Shape::count:
      return l.count[r];
    case Shape::sum:
      return l.sum;
    case Shape::difference:
      return l.difference[scale];
    case Shape::age:
      return l.age;
    case Shape::twice:
      return l.twice;
    case Shape::which_not:
      return l.which_not[r];
    case Shape::is_not:
      return l.is_not[r];
  }
  CHECK(false);
}

}  // namespace

std::string fill(std::string_view form, const Filling& filling) {
  CHECK(!form.empty());
  std::string text;
  text.reserve(form.size() + 48);
  for (size_t i = 0; i < form.size(); ++i) {
    if (form[i] != '{') {
      text += form[i];
      continue;
    }
    const auto slot = std::find_if(filling.begin(), filling.end(), [&](const auto& entry) { return entry.first == form[i + 1]; });
    CHECK(slot != filling.end());
    text += slot->second;
    i += 2;
  }
  if (text[0] >= 'a' && text[0] <= 'z') text[0] = char(text[0] - 'a' + 'A');
  return text;
}

std::string name_of(const Language& l, Kind kind, int32_t number) {
  switch (kind) {
    case Kind::person:
      return std::string(l.people[size_t(number)]);
    case Kind::city:
      return std::string(l.cities[size_t(number)]);
    case Kind::job:
      return std::string(l.jobs[size_t(number)]);
    case Kind::thing:
      return std::string(l.things[size_t(number)]);
    case Kind::container:
      return std::string(l.containers[size_t(number)]);
    case Kind::room:
      return std::string(l.rooms[size_t(number)]);
    case Kind::year:
    case Kind::price:
      return std::to_string(number);
  }
  CHECK(false);
}

std::string tell(const Language& l, const std::vector<Fact>& facts, Dice& dice, bool other_forms) {
  std::string text;
  for (const Fact& fact : facts) {
    if (!text.empty()) text += l.between;
    const std::string_view form = choose(l.statements[size_t(fact.relation)], dice, other_forms);
    text +=
        fill(form, {{'s', noun(l, subject_kind(fact.relation), fact.subject)}, {'v', name_of(l, value_kind(fact.relation), fact.value)}});
  }
  return text;
}

std::string ask(const Language& l, const Query& q, Dice& dice, bool other_forms) {
  const Kind kind = subject_kind(q.first);
  const std::string a = noun(l, kind, q.a),
                    value = q.shape == Shape::age ? std::to_string(q.value) : name_of(l, value_kind(q.first), q.value);
  std::string subject = a;
  if (q.shape == Shape::chain && q.first != Relation::container) {  // a thing is in the room where its container is
    subject = fill(choose(l.chain[size_t(q.first)], dice, other_forms), {{'s', a}});
    if (subject.starts_with("The ")) subject[0] = 't';
  }
  return fill(choose(question_forms(l, q), dice, other_forms), {{'s', subject}, {'v', value}, {'a', a}, {'b', noun(l, kind, q.b)}});
}

std::string answer(const Language& l, const Answer& a) {
  switch (a.form) {
    case Answer::yes:
      return std::string(l.yes);
    case Answer::no:
      return std::string(l.no);
    case Answer::unknown:
      return std::string(l.unknown);
    case Answer::number:
      return std::to_string(a.value);
    case Answer::name:
      return name_of(l, a.kind, a.value);
  }
  CHECK(false);
}

}  // namespace hadal::world
