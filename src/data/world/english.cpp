// The worlds in English. Names are single words, jobs begin with a consonant and take a plural in s.
#include "data/world/language.h"

namespace hadal::world {
namespace {

constexpr std::array<std::string_view, people> people_names = {
    "Alice", "Anna",  "Beth",  "Carla", "Clara",  "Daisy",  "Diana", "Ella",  "Emma",   "Eva",    "Fiona",  "Flora",  "Grace", "Hanna",
    "Helen", "Irene", "Iris",  "Jane",  "Julia",  "Karen",  "Kate",  "Laura", "Lily",   "Linda",  "Lucy",   "Maria",  "Mia",   "Nina",
    "Nora",  "Olga",  "Paula", "Rita",  "Rosa",   "Ruth",   "Sara",  "Sofia", "Tina",   "Vera",   "Wendy",  "Zoe",  // women
    "Adam",  "Alan",  "Ben",   "Bruno", "Carl",   "Daniel", "David", "Eric",  "Felix",  "Frank",  "George", "Hans",   "Henry", "Hugo",
    "Ivan",  "Jack",  "James", "John",  "Karl",   "Kevin",  "Leo",   "Louis", "Luke",   "Marco",  "Mark",   "Max",    "Nick",  "Oscar",
    "Otto",  "Paul",  "Peter", "Ralph", "Robert", "Sam",    "Simon", "Steve", "Thomas", "Victor", "Walter", "William"};
constexpr std::array<std::string_view, cities> city_names = {
    "Athens", "Berlin",  "Boston",  "Bristol", "Cairo",   "Chicago", "Dallas", "Delhi", "Denver", "Dublin",
    "Geneva", "Glasgow", "Hamburg", "Havana",  "Jakarta", "Kyoto",   "Lagos",  "Lima",  "Lisbon", "London",
    "Madrid", "Manila",  "Miami",   "Milan",   "Moscow",  "Munich",  "Naples", "Oslo",  "Oxford", "Paris",
    "Prague", "Quito",   "Riga",    "Rome",    "Seoul",   "Sydney",  "Tokyo",  "Turin", "Vienna", "Warsaw"};
constexpr std::array<std::string_view, jobs> job_names = {
    "baker",  "banker",   "barber", "builder", "butcher", "carpenter", "clerk", "cook",    "dancer", "dentist", "doctor", "driver",
    "farmer", "gardener", "guard",  "judge",   "lawyer",  "miner",     "nurse", "painter", "pilot",  "sailor",  "singer", "tailor"};
constexpr std::array<std::string_view, things> thing_names = {"apple",  "ball",  "bell", "book",  "bottle", "brush", "camera", "candle",
                                                              "clock",  "coin",  "cup",  "doll",  "drum",   "fan",   "flute",  "glove",
                                                              "hammer", "hat",   "key",  "knife", "lamp",   "map",   "mirror", "pen",
                                                              "pencil", "plate", "ring", "scarf", "shoe",   "spoon", "stone",  "watch"};
constexpr std::array<std::string_view, containers> container_names = {"bag",  "barrel", "basket", "box",     "bucket",   "cabinet",
                                                                      "case", "chest",  "closet", "crate",   "cupboard", "drawer",
                                                                      "jar",  "pot",    "sack",   "suitcase"};
constexpr std::array<std::string_view, rooms> room_names = {"attic",  "balcony", "bathroom", "bedroom", "cellar",  "garage",
                                                            "garden", "hall",    "kitchen",  "library", "nursery", "office",
                                                            "pantry", "shop",    "stable",   "workshop"};

}  // namespace

const Language& english() {
  static const Language language = {
      .name = "english",
      .people = people_names,
      .cities = city_names,
      .jobs = job_names,
      .things = thing_names,
      .containers = container_names,
      .rooms = room_names,
      .article = "the ",
      .statements = {{
          {"{s} lives in {v}.", "The home of {s} is {v}.", "{s} has a house in {v}."},
          {"{s} is a {v}.", "{s} works as a {v}.", "The job of {s} is {v}."},
          {"{s} was born in {v}.", "The birth year of {s} is {v}.", "{s} came into the world in {v}."},
          {"The mother of {s} is {v}.", "{v} is the mother of {s}.", "{s} is a child of mother {v}."},
          {"The father of {s} is {v}.", "{v} is the father of {s}.", "{s} is a child of father {v}."},
          {"The teacher of {s} is {v}.", "{v} is the teacher of {s}.", "{s} learns from {v}."},
          {"{s} belongs to {v}.", "{v} is the owner of {s}.", "{v} has {s}."},
          {"{s} is in the {v}.", "{s} lies in the {v}.", "In the {v} is {s}."},
          {"{s} stands in the {v}.", "{s} is in the {v}.", "In the {v} stands {s}."},
          {"{s} costs {v} coins.", "The price of {s} is {v}.", "One pays {v} coins for {s}."},
      }},
      .value = {{
          {"Where does {s} live?", "In which city does {s} live?", "Where is the home of {s}?"},
          {"What is the job of {s}?", "What does {s} work as?", "What job does {s} have?"},
          {"When was {s} born?", "In which year was {s} born?", "What is the birth year of {s}?"},
          {"Who is the mother of {s}?", "What is the name of the mother of {s}?", "Of which mother is {s} a child?"},
          {"Who is the father of {s}?", "What is the name of the father of {s}?", "Of which father is {s} a child?"},
          {"Who is the teacher of {s}?", "Who teaches {s}?", "From whom does {s} learn?"},
          {"Who is the owner of {s}?", "To whom does {s} belong?", "Who has {s}?"},
          {"What is {s} in?", "In what does {s} lie?", "In which container is {s}?"},
          {"In which room is {s}?", "Which room is {s} in?", "In what room can one find {s}?"},
          {"What is the price of {s}?", "How many coins does {s} cost?", "What does one pay for {s}?"},
      }},
      .subject = {{
          {"Who lives in {v}?", "Whose home is {v}?", "Who has a house in {v}?"},
          {"Who is a {v}?", "Who works as a {v}?", "Whose job is {v}?"},
          {"Who was born in {v}?", "Whose birth year is {v}?", "Who came into the world in {v}?"},
          {"Who is the child of {v}?", "Whose mother is {v}?", "Who has {v} as mother?"},
          {"Who is the child of {v}?", "Whose father is {v}?", "Who has {v} as father?"},
          {"Whose teacher is {v}?", "Whom does {v} teach?", "Who learns from {v}?"},
          {"What belongs to {v}?", "What is {v} the owner of?", "What does {v} have?"},
          {"What is in the {v}?", "What lies in the {v}?", "Which thing does the {v} hold?"},
          {"What stands in the {v}?", "Which container is in the {v}?", "What can one find in the {v}?"},
          {"What costs {v} coins?", "Which thing has the price {v}?", "For what does one pay {v} coins?"},
      }},
      .chain = {{
          {},
          {},
          {},
          {"the mother of {s}", "{s}'s mother", "the woman who is mother of {s}"},
          {"the father of {s}", "{s}'s father", "the man who is father of {s}"},
          {"the teacher of {s}", "{s}'s teacher", "the person who teaches {s}"},
          {"the owner of {s}", "the person who owns {s}", "the one who has {s}"},
          {},
          {},
          {},
      }},
      .count = {{
          {"How many people live in {v}?", "How many have a home in {v}?", "What number of people live in {v}?"},
          {"How many people are {v}s?", "How many work as a {v}?", "What number of people are {v}s?"},
          {},
          {},
          {},
          {"How many people does {v} teach?", "How many people have {v} as teacher?", "What number of people learn from {v}?"},
          {"How many things belong to {v}?", "How many things does {v} own?", "What number of things does {v} have?"},
          {"How many things are in the {v}?", "How many things lie in the {v}?", "What number of things does the {v} hold?"},
          {"How many containers are in the {v}?", "How many containers stand in the {v}?", "What number of containers are in the {v}?"},
          {},
      }},
      .which_not = {{
          {"Who does not live in {v}, {a} or {b}?", "Which of {a} and {b} does not live in {v}?", "Whose home is not {v}, {a} or {b}?"},
          {"Who is not a {v}, {a} or {b}?", "Which of {a} and {b} is not a {v}?", "Whose job is not {v}, {a} or {b}?"},
          {},
          {},
          {},
          {},
          {"What does not belong to {v}, {a} or {b}?", "Which of {a} and {b} does not belong to {v}?",
           "What does {v} not have, {a} or {b}?"},
          {"What is not in the {v}, {a} or {b}?", "Which of {a} and {b} is not in the {v}?", "What does the {v} not hold, {a} or {b}?"},
          {"What is not in the {v}, {a} or {b}?", "Which of {a} and {b} is not in the {v}?",
           "What can one not find in the {v}, {a} or {b}?"},
          {},
      }},
      .is_not = {{
          {"Is it true that {a} does not live in {v}?", "Is it so that {a} does not live in {v}?", "Is the home of {a} not {v}?"},
          {"Is it true that {a} is not a {v}?", "Is it so that {a} is not a {v}?", "Is the job of {a} not {v}?"},
          {},
          {},
          {},
          {},
          {"Is it true that {a} does not belong to {v}?", "Is it so that {a} does not belong to {v}?", "Is the owner of {a} not {v}?"},
          {"Is it true that {a} is not in the {v}?", "Is it so that {a} is not in the {v}?", "Is the {v} without {a}?"},
          {"Is it true that {a} is not in the {v}?", "Is it so that {a} is not in the {v}?", "Is the {v} without {a}?"},
          {},
      }},
      .more = {{{"Who is older, {a} or {b}?", "Which of {a} and {b} is older?", "Who came first into the world, {a} or {b}?"},
                {"What costs more, {a} or {b}?", "Which of {a} and {b} costs more?", "For what does one pay more, {a} or {b}?"}}},
      .less = {{{"Who is younger, {a} or {b}?", "Which of {a} and {b} is younger?", "Who came last into the world, {a} or {b}?"},
                {"What costs less, {a} or {b}?", "Which of {a} and {b} costs less?", "For what does one pay less, {a} or {b}?"}}},
      .most = {{{"Who is the oldest?", "Which person is the oldest?", "Who came first into the world?"},
                {"What costs the most?", "Which thing costs the most?", "For what does one pay the most?"}}},
      .least = {{{"Who is the youngest?", "Which person is the youngest?", "Who came last into the world?"},
                 {"What costs the least?", "Which thing costs the least?", "For what does one pay the least?"}}},
      .difference = {{{"How many years older is {a} than {b}?", "By how many years is {a} older than {b}?",
                       "How many years before {b} was {a} born?"},
                      {"How many coins more does {a} cost than {b}?", "By how many coins is {a} dearer than {b}?",
                       "How much more does one pay for {a} than for {b}?"}}},
      .sum = {"How much do {a} and {b} cost together?", "What is the price of {a} and {b} together?",
              "What does one pay for both {a} and {b}?"},
      .age = {"How old was {a} in {v}?", "What was the age of {a} in {v}?", "How many years old was {a} in {v}?"},
      .twice = {"How much do two of {a} cost?", "What is the price of {a} taken twice?", "What does one pay for two of {a}?"},
      .yes = "yes",
      .no = "no",
      .unknown = "unknown",
      .between = " ",
  };
  return language;
}

}  // namespace hadal::world
