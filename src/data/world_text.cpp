// Plain text of the same worlds as the questions: what a model learns to write sentences from.
#include "core/error.h"
#include "data/world/story.h"
#include "data/world_qa.h"

namespace hadal {

using namespace world;

namespace {

class WorldText : public Source {  // half of the texts are stories, half are documents of the kind that questions are about
 public:
  explicit WorldText(const SourceConfig& config) : facts_(config), unseen_(config.split != "train"), seed_(mix_bits(facts_.hash())) {
    if (!config.types.empty()) throw Error("world_text has no types: expected none, found \"{}\"", config.types[0]);
  }
  int64_t size() const override { return facts_.size(); }
  uint64_t hash() const override { return facts_.hash(); }
  Example at(int64_t index) const override {
    const WorldExample made = facts_.example_at(index);
    Dice dice(mix_bits(seed_ ^ mix_bits(uint64_t(index))));
    std::optional<std::string> story;
    if (dice.below(2) == 0)
      while (!story) story = tell_story(*made.language, draw_world(dice, unseen_), dice);
    Example plain;
    plain.text = story ? *story : made.example.text;
    plain.language = made.example.language;
    return plain;
  }

 private:
  WorldQA facts_;
  bool unseen_;
  uint64_t seed_;
};

}  // namespace

std::unique_ptr<Source> open_world_text(const SourceConfig& config) { return std::make_unique<WorldText>(config); }

}  // namespace hadal
