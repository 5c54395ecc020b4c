#include "data/world_qa.h"

#include <algorithm>

#include "core/error.h"
#include "core/random.h"

namespace hadal {

using namespace world;

namespace {

constexpr uint64_t version = 1;  // of what is generated: a change of words or draws makes other examples
constexpr int most_attempts = 1000;

// An answer that is always the same must not pay: of fifteen questions one has none, two have yes or no.
constexpr std::array<int, type_names.size()> shares = {3, 3, 2, 2, 2, 2, 1};

std::vector<const Language*> languages_of(const SourceConfig& config) {
  std::vector<const Language*> languages;
  for (const std::string& name : config.languages) {
    if (name != english().name && name != chinese().name) throw Error("unknown language \"{}\": expected english or chinese", name);
    languages.push_back(name == english().name ? &english() : &chinese());
  }
  if (languages.empty()) languages = {&english(), &chinese()};
  return languages;
}

std::vector<Type> types_of(const SourceConfig& config) {
  for (const std::string& name : config.types)
    if (std::find(type_names.begin(), type_names.end(), name) == type_names.end())
      throw Error("unknown type of question \"{}\": expected one of {}", name, fmt::join(type_names, ", "));
  std::vector<Type> types;
  for (size_t i = 0; i < type_names.size(); ++i) {
    const bool wanted = config.types.empty() || std::find(config.types.begin(), config.types.end(), type_names[i]) != config.types.end();
    if (wanted) types.insert(types.end(), size_t(shares[i]), Type(i));
  }
  return types;
}

RelationSet relations_of(const SourceConfig& config) {
  RelationSet relations;
  for (const std::string& name : config.relations) {
    const auto found = std::find(relation_names.begin(), relation_names.end(), name);
    if (found == relation_names.end()) throw Error("unknown relation \"{}\": expected one of {}", name, fmt::join(relation_names, ", "));
    relations.set(size_t(found - relation_names.begin()));
  }
  return relations.any() ? relations : relations.set();
}

size_t split_number(const std::string& split) {
  constexpr std::array names = {"train", "worlds", "templates", "compositions"};
  const auto found = std::find(names.begin(), names.end(), split);
  if (found == names.end()) throw Error("unknown split \"{}\": expected one of {}", split, fmt::join(names, ", "));
  return size_t(found - names.begin());
}

uint64_t hash_of(const SourceConfig& config) {
  uint64_t hash = hash_bytes(config.kind + " " + config.split, mix_bits(version) ^ config.seed);
  if (config.questions > 1) hash = mix_bits(hash ^ uint64_t(config.questions));
  if (config.facts > 0) hash = mix_bits(hash + uint64_t(config.facts));
  for (const auto* list : {&config.languages, &config.types, &config.relations})
    for (const std::string& name : *list) hash = hash_bytes(name, hash);
  return hash;
}

}  // namespace

WorldQA::WorldQA(const SourceConfig& config) : questions_(config.questions), facts_(config.facts), hash_(hash_of(config)) {
  if (questions_ < 1) throw Error("world_qa: questions: expected at least 1, found {}", questions_);
  if (facts_ < 0) throw Error("world_qa: facts: expected at least 1, or 0 for 7 to 10, found {}", facts_);
  const size_t split = split_number(config.split);
  unseen_ = split > 0;
  other_forms_ = config.split == "templates";
  held_out_ = config.split == "compositions";
  relations_ = relations_of(config);
  types_ = types_of(config);
  for (const Type type : types_)
    if (!can_be_asked({type, held_out_, relations_}))
      throw Error("world_qa: split {} has no question of type {} about {}", config.split, type_names[size_t(type)],
                  config.relations.empty() ? "any relation" : fmt::format("{} alone", fmt::join(config.relations, ", ")));
  languages_ = languages_of(config);
  seed_ = mix_bits(mix_bits(config.seed) + split);
}

WorldExample WorldQA::example_at(int64_t index) const {
  Dice dice(mix_bits(seed_ ^ mix_bits(uint64_t(index))));
  const Language& language = *dice.pick(languages_);
  const Type type = dice.pick(types_);
  for (int attempt = 0; attempt < most_attempts; ++attempt) {
    const World world = draw_world(dice, unseen_);
    std::optional<Item> item = draw_question(dice, world, {type, held_out_, relations_}, facts_);
    if (!item) continue;
    Example example;
    example.text = tell(language, item->facts, dice, other_forms_);
    example.question = ask(language, item->query, dice, other_forms_);
    example.answer = answer(language, item->answer);
    example.type = type_names[size_t(type)];
    example.language = language.name;
    WorldExample made{std::move(*item), {}, &language, std::move(example)};
    talk_on(made, world, dice);
    return made;
  }
  CHECK(false);
}

// A short document may not have as many questions as are wanted: then there are fewer.
void WorldQA::talk_on(WorldExample& made, const World& world, Dice& dice) const {
  for (int attempt = 0; std::ssize(made.more) + 1 < questions_ && attempt < most_attempts; ++attempt) {
    const std::optional<Item> item = draw_question_about(dice, world, made.item.facts, {dice.pick(types_), held_out_, relations_});
    if (!item) continue;
    Turn turn{ask(*made.language, item->query, dice, other_forms_), answer(*made.language, item->answer),
              std::string(type_names[size_t(item->query.type)])};
    const auto is_asked = [&](const Turn& other) { return other.question == turn.question; };
    if (turn.question == made.example.question || std::any_of(made.example.more.begin(), made.example.more.end(), is_asked)) continue;
    made.example.more.push_back(std::move(turn));
    made.more.push_back(*item);
  }
}

std::unique_ptr<Source> open_world_qa(const SourceConfig& config) { return std::make_unique<WorldQA>(config); }

}  // namespace hadal
