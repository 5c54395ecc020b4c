// How a language names and tells the facts of a world, and asks about them.
#pragma once
#include <array>
#include <span>
#include <string>
#include <string_view>

#include "data/world/question.h"

namespace hadal::world {

using Forms = std::array<std::string_view, 3>;  // ways to say one thing; the last is kept for the split "templates"

// {s} subject, {v} value, {a} and {b} the two that are compared. Sentences have at most seven words, so that thirteen in a row hold a fact.
struct Language {
  std::string_view name;
  std::span<const std::string_view> people, cities, jobs, things, containers, rooms;
  std::string_view article;                                  // before a thing or container that is spoken of: "the "
  std::array<Forms, relations> statements;                   // {s} {v}
  std::array<Forms, relations> value;                        // {s}: where does {s} live?
  std::array<Forms, relations> subject;                      // {v}: who lives in {v}?
  std::array<Forms, relations> chain;                        // {s}: the mother of {s}
  std::array<Forms, relations> count;                        // {v}: how many people live in {v}?
  std::array<Forms, relations> which_not;                    // {a} {b} {v}
  std::array<Forms, relations> is_not;                       // {a} {v}
  std::array<Forms, 2> more, less, most, least, difference;  // {a} {b}: of years of birth, of prices
  Forms sum, age, twice;                                     // {a} {b}; {a} {v}; {a}
  std::string_view yes, no, unknown, between;                // between: what stands between two sentences
};
const Language& english();
const Language& chinese();

// The document of these facts, the question, and the answer. other_forms: the phrasings that training never sees.
std::string tell(const Language& language, const std::vector<Fact>& facts, Dice& dice, bool other_forms);
std::string ask(const Language& language, const Query& query, Dice& dice, bool other_forms);
std::string answer(const Language& language, const Answer& answer);
std::string name_of(const Language& language, Kind kind, int32_t number);  // bare: "lamp", "1962"

// A form with its {letters} replaced, beginning with a capital letter.
using Filling = std::vector<std::pair<char, std::string>>;
std::string fill(std::string_view form, const Filling& filling);

}  // namespace hadal::world
