// Questions about documents of small worlds, in English and Chinese: made, not collected, so that there are as many as anybody wants, every
// answer is known to follow from its document, and what a test has in common with training is chosen:
//   train         facts, phrasings and compositions for training
//   worlds        no fact of it is in any training document
//   templates     worlds, told and asked in other words
//   compositions  worlds, and questions that put known parts together as training never does (the youngest, the cheapest, ...)
#pragma once
#include "data/source.h"
#include "data/world/language.h"

namespace hadal {

struct WorldExample {
  world::Item item;
  std::vector<world::Item> more;  // of the example's further questions
  const world::Language* language;
  Example example;
};

class WorldQA : public Source {
 public:
  explicit WorldQA(const SourceConfig& config);  // seed, split, languages, types, relations, questions, facts. Error: an unknown one
  int64_t size() const override { return endless; }
  Example at(int64_t index) const override { return example_at(index).example; }
  uint64_t hash() const override { return hash_; }
  WorldExample example_at(int64_t index) const;  // with the facts that it was made from

 private:
  void talk_on(WorldExample& example, const world::World& world, world::Dice& dice) const;
  bool unseen_, other_forms_, held_out_;
  int64_t questions_, facts_;
  world::RelationSet relations_;
  std::vector<world::Type> types_;  // as often as they shall come
  std::vector<const world::Language*> languages_;
  uint64_t seed_, hash_;
};

std::unique_ptr<Source> open_world_qa(const SourceConfig& config);
std::unique_ptr<Source> open_world_text(const SourceConfig& config);  // documents and short stories of the same worlds, without questions

}  // namespace hadal
