#include "data/recall.h"

#include <charconv>

#include "core/error.h"
#include "core/random.h"
#include "data/world/world.h"

namespace hadal {
namespace {

constexpr int64_t payload = 8, longest = int64_t(1) << 20;

class Recall : public Source {
 public:
  explicit Recall(const SourceConfig& config) : seed_(config.seed), test_(config.split != "train") {
    if (config.types.size() != 1) throw Error("recall: expected one type, \"LETTERS DISTANCE\", found {}", config.types.size());
    const std::string& type = config.types[0];
    const char* end = type.data() + type.size();
    const auto [space, first] = std::from_chars(type.data(), end, letters_);
    const auto [rest, second] =
        space < end ? std::from_chars(space + 1, end, distance_) : std::from_chars_result{end, std::errc::invalid_argument};
    if (first != std::errc() || second != std::errc() || rest != end || letters_ < 1 || letters_ > 26 ||
        distance_ < letters_ * (payload + 1) || distance_ > longest)
      throw Error("recall: expected a type \"LETTERS DISTANCE\", 1 to 26 letters and a distance from {} a letter to {}, found \"{}\"",
                  payload + 1, longest, type);
  }
  int64_t size() const override { return int64_t(1) << 40; }
  uint64_t hash() const override { return mix_bits(mix_bits(seed_ + 2 * uint64_t(distance_) + test_) ^ uint64_t(letters_)); }

  Example at(int64_t index) const override {
    world::Dice dice(mix_bits(mix_bits(seed_ * 2 + test_) ^ mix_bits(uint64_t(index))));
    std::string text;
    for (int64_t i = 0; i < distance_; ++i) text += digit(dice);
    std::vector<char> letters;
    for (char c = 'a'; c <= 'z'; ++c) letters.push_back(c);
    dice.shuffle(letters);
    // The first letter is the one asked for, and the text begins with it; the others stand in equal parts of the rest.
    const int64_t part = letters_ == 1 ? 0 : (distance_ - payload - 1) / (letters_ - 1);
    text[0] = letters[0];
    for (int64_t i = 1; i < letters_; ++i)
      text[size_t(payload + 1 + (i - 1) * part + dice.below(size_t(part - payload)))] = letters[size_t(i)];
    Example example;
    example.answer = text.substr(1, payload);
    example.text = std::move(text);
    example.question = std::string(1, letters[0]);
    example.type = fmt::format("{} {}", letters_, distance_);
    return example;
  }

 private:
  static char digit(world::Dice& dice) { return char('0' + dice.below(10)); }
  uint64_t seed_;
  bool test_;
  int64_t letters_ = 0, distance_ = 0;
};

}  // namespace

std::unique_ptr<Source> open_recall(const SourceConfig& config) { return std::make_unique<Recall>(config); }

}  // namespace hadal
