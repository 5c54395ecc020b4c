// Answering questions: the engine's replies are the model's likeliest tokens, and the arithmetic of accuracies, intervals and retention.
#include "eval/answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "core/error.h"
#include "data/train_tokenizer.h"
#include "data/world_qa.h"
#include "eval/logits.h"
#include "model/prompt.h"

namespace hadal {
namespace {
namespace fs = std::filesystem;

using testing::HasSubstr;
using testing::ThrowsMessage;

Example question(const std::string& answer, const std::string& type = "lookup", const std::string& language = "english") {
  Example e;
  e.question = "?";
  e.answer = answer;
  e.type = type;
  e.language = language;
  return e;
}

ModelConfig tiny(int64_t vocab) {
  ModelConfig c;
  c.family = "llama";
  c.vocab = vocab;
  c.dim = 32;
  c.layers = 2;
  c.heads = 2;
  c.kv_heads = 1;
  c.head_dim = 16;
  c.ffn_dim = 40;
  c.dense_layers = 2;
  c.context = 1024;
  c.attention_scale = 0.25f;
  return c;
}

TEST(AnswerQuestions, RepliesAreTheLikeliestTokensWhateverTheBatch) {
  const fs::path folder = fs::path(testing::TempDir()) / "answers_tokenizer";
  SourceConfig config;
  config.kind = "world_qa";
  config.split = "worlds";
  const WorldQA source(config);
  const Source* sources[] = {&source};
  TokenizerOptions options;
  options.vocab = 300;
  options.examples = 50;
  const int64_t vocab = train_tokenizer(sources, folder, options);
  const Tokenizer tokenizer = Tokenizer::from_folder(folder);
  std::ifstream file(folder / "chat_template.jinja");
  const ChatTemplate chat = ChatTemplate::parse(std::string(std::istreambuf_iterator<char>(file), {}), "chat_template.jinja");
  const Model model = random_model(tiny(vocab), DType::f32, 3);

  std::vector<Example> questions;
  for (int64_t i = 0; i < 9; ++i) questions.push_back(source.at(i));
  AnswerOptions how{.max_tokens = 5, .batch = 4, .cache = DType::f32};
  const std::vector<std::string> answers = answer_questions(model, tokenizer, chat, questions, how);
  ASSERT_EQ(answers.size(), questions.size());
  how.batch = 1;
  EXPECT_EQ(answer_questions(model, tokenizer, chat, questions, how), answers);

  Message message;
  message.role = "user";
  message.content = questions[4].prompt();
  std::vector<int32_t> tokens = chat_prompt(tokenizer, chat, {&message, 1}).tokens, reply;
  const std::vector<int32_t> ends = end_tokens(model.config, tokenizer);
  for (int i = 0; i < 5; ++i) {
    int32_t best = 0;
    Feeder feeder(model, {DType::f32, 512}, int64_t(tokens.size()));
    feeder.run(tokens, int64_t(tokens.size()) - 1, int64_t(tokens.size()), [&](int64_t, Mat<float> logits) {
      best = int32_t(std::max_element(logits.row(0), logits.row(0) + logits.cols) - logits.row(0));
    });
    if (std::ranges::find(ends, best) != ends.end()) break;
    reply.push_back(best);
    tokens.push_back(best);
  }
  Utf8Stream characters;
  std::string text = characters.push(tokenizer.decode(reply));
  text += characters.finish();
  EXPECT_THAT(text, HasSubstr(answers[4]));  // but for spaces around it
  EXPECT_FALSE(answers[4].empty());

  int64_t calls = 0;
  how.progress = [&](int64_t, int64_t all) {
    EXPECT_EQ(all, 9);
    return ++calls < 2;
  };
  EXPECT_TRUE(answer_questions(model, tokenizer, chat, questions, how).empty()) << "stopped";
  fs::remove_all(folder);
}

TEST(NormalizedAnswer, LeavesWhatPeopleTakeAsTheAnswer) {
  EXPECT_EQ(normalized_answer("The red Box."), "redbox");
  EXPECT_EQ(normalized_answer("  42 "), "42");
  EXPECT_EQ(normalized_answer("４２。"), "42");
  EXPECT_EQ(normalized_answer("北京。"), "北京");
  EXPECT_EQ(normalized_answer("a"), "");
  EXPECT_EQ(normalized_answer("Anna"), "anna");
  EXPECT_EQ(normalized_answer("theatre"), "theatre");
  EXPECT_EQ(normalized_answer("\xff\xef\xbc"), normalized_answer("\xff\xef\xbc"));
  EXPECT_EQ(normalized_answer(""), "");
}

TEST(Bootstrap, CoversWhatTheBinomialSays) {
  std::vector<uint8_t> right(400);
  for (size_t i = 0; i < right.size(); ++i) right[i] = i % 4 == 0;
  const auto mean = [&](std::span<const int32_t> drawn) {
    double sum = 0;
    for (const int32_t i : drawn) sum += right[size_t(i)];
    return sum / double(drawn.size());
  };
  const Interval found = bootstrap(400, 1, mean);
  const double half = 1.96 * std::sqrt(0.25 * 0.75 / 400);
  EXPECT_NEAR(found.low, 0.25 - half, 0.01);
  EXPECT_NEAR(found.high, 0.25 + half, 0.01);
  const Interval again = bootstrap(400, 1, mean), other = bootstrap(400, 2, mean);
  EXPECT_EQ(found.low, again.low);
  EXPECT_TRUE(found.low != other.low || found.high != other.high);
  const Interval one = bootstrap(1, 1, mean);
  EXPECT_EQ(one.low, 1);
  EXPECT_EQ(one.high, 1);
}

TEST(ScoreAnswers, CountsByTypeAndLanguage) {
  const std::vector<Example> questions{question("Ann"), question("Ann"), question("Bob"), question("7", "count"),
                                       question("7", "count", "chinese")};
  const std::vector<Score> scores = score_answers(questions, std::vector<std::string>{"Ann", "ann.", "Bob", "8", " 7 "});
  ASSERT_EQ(scores.size(), 1u + 2 + 2 + 3);
  EXPECT_EQ(scores[0].questions, 5);
  EXPECT_DOUBLE_EQ(scores[0].exact, 0.6);
  EXPECT_DOUBLE_EQ(scores[0].normalized, 0.8);
  EXPECT_DOUBLE_EQ(scores[0].majority, 0.8) << "Ann, 7 and 7 in their kinds: four of five";
  EXPECT_LE(scores[0].exact_interval.low, 0.6);
  EXPECT_GE(scores[0].exact_interval.high, 0.6);
  const auto of = [&](const std::string& type, const std::string& language) {
    return *std::ranges::find_if(scores, [&](const Score& s) { return s.type == type && s.language == language; });
  };
  EXPECT_EQ(of("count", "").questions, 2);
  EXPECT_DOUBLE_EQ(of("count", "").exact, 0.5);
  EXPECT_DOUBLE_EQ(of("", "chinese").exact, 1);
  EXPECT_DOUBLE_EQ(of("count", "english").exact, 0);
  EXPECT_NEAR(of("lookup", "english").majority, 2. / 3, 1e-12);
}

TEST(CompareAnswers, RetentionOverAndAboveChance) {
  std::vector<Example> questions;
  std::vector<std::string> teacher, student;
  for (int i = 0; i < 1000; ++i) {
    questions.push_back(question(i < 100 ? "common" : std::to_string(i)));  // chance: 10 %
    teacher.push_back(i < 900 ? questions.back().answer : "wrong");         // 90 %
    student.push_back(i < 810 ? questions.back().answer : "wrong");         // 81 %, the wrong ones alike
  }
  const std::vector<Retention> all = compare_answers(questions, student, teacher);
  ASSERT_EQ(all.size(), 2u);
  const Retention& r = all[0];
  EXPECT_NEAR(r.teacher, 0.9, 1e-12);
  EXPECT_NEAR(r.chance, 0.1, 1e-12);
  EXPECT_NEAR(r.kept, 0.9, 1e-12);
  EXPECT_NEAR(r.corrected, 0.71 / 0.8, 1e-12);
  EXPECT_NEAR(r.agreement, 0.91, 1e-9);
  // Paired: the deviation of (kept) is that of the 90 of 900 that the student lost, sqrt(0.9 * 0.1 / 900) = 1 %.
  EXPECT_NEAR(r.kept_interval.low, 0.9 - 0.0196, 0.004);
  EXPECT_NEAR(r.kept_interval.high, 0.9 + 0.0196, 0.004);
  const Retention same = compare_answers(questions, teacher, teacher)[0];
  EXPECT_EQ(same.kept_interval.low, 1);
  EXPECT_EQ(same.corrected_interval.high, 1);
}

TEST(CompareAnswers, SaysWhatDoesNotFit) {
  const std::vector<Example> questions{question("a")};
  const std::vector<std::string> one{"a"}, two{"a", "b"};
  EXPECT_THAT([&] { compare_answers(questions, one, two); }, ThrowsMessage<Error>(HasSubstr("2 answers, expected one to each of 1")));
  EXPECT_THAT([&] { score_answers({}, {}); }, ThrowsMessage<Error>(HasSubstr("no questions")));
  const Retention nothing = compare_answers(questions, one, std::vector<std::string>{"x"})[0];
  EXPECT_EQ(nothing.kept, 0) << "a teacher that knows nothing";
}

}  // namespace
}  // namespace hadal
