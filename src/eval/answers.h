// Question answering: what a model replies, how much of it is right, and how much of a teacher's accuracy a student keeps.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "data/source.h"
#include "infer/model.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"

namespace hadal {

struct AnswerOptions {
  int64_t max_tokens = 48, batch = 64;  // of a reply; questions answered at a time
  int64_t chunk = 256;                  // rows of one prompt per pass
  DType cache = DType::f16;
  std::function<bool(int64_t done, int64_t all)> progress = {};  // false: stop
};
// The likeliest reply to each question behind the chat template, without reasoning and without spaces around it. Fewer than questions where
// progress stopped it: none. Error: a question that the context does not hold.
std::vector<std::string> answer_questions(const Model& model, const Tokenizer& tokenizer, const ChatTemplate& chat,
                                          std::span<const Example> questions, const AnswerOptions& options);

// What people take as the same answer: without capitals, articles, spaces and punctuation, digits as ASCII.
std::string normalized_answer(std::string_view answer);

struct Interval {  // of 95 %
  double low = 0, high = 0;
};
// Percentiles 2.5 and 97.5 of statistic(drawn), `drawn` being as many of [0, count) as there are, with replacement; 1,000 times.
Interval bootstrap(int64_t count, uint64_t seed, const std::function<double(std::span<const int32_t> drawn)>& statistic);

struct Score {                 // of some of the questions
  std::string type, language;  // empty: of all
  int64_t questions = 0;
  double exact = 0, normalized = 0;  // share of them
  Interval exact_interval;
  double majority = 0;  // what always saying the commonest answer of the question's type and language would reach
};
// Of all questions first, then of each type, language, and type in a language. Error: no questions, or another number of answers.
std::vector<Score> score_answers(std::span<const Example> questions, std::span<const std::string> answers, uint64_t seed = 1);

struct Retention {  // of a teacher's accuracy, by exact match; paired: both answered each drawn question
  std::string type;
  int64_t questions = 0;
  double teacher = 0, student = 0, chance = 0;  // accuracies; chance: as Score has majority
  double kept = 0, corrected = 0;               // student / teacher; (student - chance) / (teacher - chance)
  Interval kept_interval, corrected_interval;
  double agreement = 0;  // share of questions with the same answer, right or wrong
};
// Of all questions first, then of each type.
std::vector<Retention> compare_answers(std::span<const Example> questions, std::span<const std::string> student,
                                       std::span<const std::string> teacher, uint64_t seed = 1);

}  // namespace hadal
