#include "data/recall.h"

#include <sstream>

#include "core/error.h"
#include "core/random.h"
#include "data/world/world.h"

namespace hadal {
namespace {

constexpr uint64_t version = 2;  // of what is made
constexpr int64_t longest = int64_t(1) << 20;

class Recall : public Source {
 public:
  explicit Recall(const SourceConfig& config) : seed_(config.seed), test_(config.split != "train"), questions_(config.questions) {
    if (config.types.size() != 1) throw Error("recall: expected one type, \"LETTERS DISTANCE\", found {}", config.types.size());
    std::vector<int64_t> numbers;
    std::istringstream in(config.types[0]);
    for (int64_t number = 0; in >> number;) numbers.push_back(number);
    if (!in.eof() || numbers.size() < 2 || numbers.size() > 3) refuse(config.types[0]);
    letters_ = numbers[0], distance_ = numbers[1];
    if (numbers.size() == 3) digits_ = numbers[2];
    if (letters_ < 1 || letters_ > 26 || digits_ < 1 || distance_ > longest || digits_ >= distance_ / letters_) refuse(config.types[0]);
    if (questions_ < 1 || questions_ > letters_)
      throw Error("recall: questions: expected at most one for each of {} letters, found {}", letters_, questions_);
  }
  int64_t size() const override { return int64_t(1) << 40; }
  uint64_t hash() const override {
    uint64_t hash = mix_bits(version ^ mix_bits(seed_ * 2 + test_));
    for (const int64_t part : {letters_, distance_, digits_, questions_}) hash = mix_bits(hash ^ uint64_t(part));
    return hash;
  }

  Example at(int64_t index) const override {
    world::Dice dice(mix_bits(mix_bits(seed_ * 2 + test_) ^ mix_bits(uint64_t(index))));
    std::string text;
    for (int64_t i = 0; i < distance_; ++i) text += digit(dice);
    std::vector<char> letters;
    for (char c = 'a'; c <= 'z'; ++c) letters.push_back(c);
    dice.shuffle(letters);
    // The text begins with the first letter, which one question alone asks for; the others stand in equal parts of the rest. Of more
    // questions it may be any: the answer to the first shall not be known by its place.
    const int64_t part = letters_ == 1 ? 0 : (distance_ - digits_ - 1) / (letters_ - 1);
    std::vector<Turn> turns;
    for (int64_t i = 0; i < letters_; ++i) {
      const int64_t place = i == 0 ? 0 : digits_ + 1 + (i - 1) * part + int64_t(dice.below(size_t(part - digits_)));
      text[size_t(place)] = letters[size_t(i)];
      turns.push_back({std::string(1, letters[size_t(i)]), text.substr(size_t(place + 1), size_t(digits_))});
    }
    if (questions_ > 1) dice.shuffle(turns);
    Example example;
    example.question = turns[0].question, example.answer = turns[0].answer;
    example.more.assign(turns.begin() + 1, turns.begin() + questions_);
    example.text = std::move(text);
    example.type = fmt::format("{} {}", letters_, distance_);
    return example;
  }

 private:
  [[noreturn]] static void refuse(const std::string& type) {
    throw Error(
        "recall: expected a type \"LETTERS DISTANCE\" or \"LETTERS DISTANCE DIGITS\", 1 to 26 letters and more than a letter and "
        "its digits (8) for each, at most {}, found \"{}\"",
        longest, type);
  }
  static char digit(world::Dice& dice) { return char('0' + dice.below(10)); }
  uint64_t seed_;
  bool test_;
  int64_t letters_ = 0, distance_ = 0, digits_ = 8, questions_;
};

}  // namespace

std::unique_ptr<Source> open_recall(const SourceConfig& config) { return std::make_unique<Recall>(config); }

}  // namespace hadal
