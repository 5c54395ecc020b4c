// Plain text of the same worlds as the questions: what a model learns to write sentences from.
#include <algorithm>

#include "core/error.h"
#include "core/random.h"
#include "data/world/story.h"
#include "data/world_qa.h"

namespace hadal {

using namespace world;

namespace {

// story; document: of the kind that questions are about; retold: a document twice, the second time in another order and other words, so
// that every fact in it is a question of which the first telling is the answer.
enum class TextType : uint8_t { story, document, retold };
constexpr std::array text_type_names = {"story", "document", "retold"};

std::vector<TextType> text_types_of(const SourceConfig& config) {
  std::vector<TextType> types;
  for (const std::string& name : config.types) {
    const auto found = std::find(text_type_names.begin(), text_type_names.end(), name);
    if (found == text_type_names.end())
      throw Error("unknown type of text \"{}\": expected one of {}", name, fmt::join(text_type_names, ", "));
    types.push_back(TextType(found - text_type_names.begin()));
  }
  return types.empty() ? std::vector{TextType::story, TextType::document} : types;
}

SourceConfig without_types(SourceConfig config) {
  config.types.clear();
  return config;
}

class WorldText : public Source {
 public:
  explicit WorldText(const SourceConfig& config)
      : facts_(without_types(config)), types_(text_types_of(config)), unseen_(config.split != "train"), seed_(mix_bits(facts_.hash())) {
    hash_ = facts_.hash();
    for (const std::string& name : config.types) hash_ = hash_bytes(name, hash_);
  }
  int64_t size() const override { return facts_.size(); }
  uint64_t hash() const override { return hash_; }
  Example at(int64_t index) const override {
    const WorldExample made = facts_.example_at(index);
    Dice dice(mix_bits(seed_ ^ mix_bits(uint64_t(index))));
    Example plain;
    plain.language = made.example.language;
    switch (dice.pick(types_)) {
      case TextType::story: {
        std::optional<std::string> story;
        while (!story) story = tell_story(*made.language, draw_world(dice, unseen_), dice);
        plain.text = *story;
        break;
      }
      case TextType::document:
        plain.text = made.example.text;
        break;
      case TextType::retold: {
        std::vector<Fact> facts = made.item.facts;
        dice.shuffle(facts);
        plain.text = made.example.text + "\n" + tell(*made.language, facts, dice, false);
        break;
      }
    }
    return plain;
  }

 private:
  WorldQA facts_;
  std::vector<TextType> types_;
  bool unseen_;
  uint64_t seed_, hash_;
};

}  // namespace

std::unique_ptr<Source> open_world_text(const SourceConfig& config) { return std::make_unique<WorldText>(config); }

}  // namespace hadal
